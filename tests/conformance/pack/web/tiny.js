// Shows that the editor has loaded a package's script: tests look for the attribute.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "tiny.extension",
  setup() {
    document.documentElement.dataset.tiny = "loaded";
  },
});
