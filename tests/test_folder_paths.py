"""The embedded server's folder_paths finds, lists and names files as ComfyUI's module of that name does."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from discomfort.embedded import folder_paths


@pytest.fixture(autouse=True)
def base(tmp_path: Path) -> Iterator[Path]:
    """folder_paths laid out below an empty folder, and its shared sets as they were afterwards."""
    extensions = set(folder_paths.supported_pt_extensions)
    folder_paths.configure(tmp_path / "base")
    yield tmp_path / "base"
    folder_paths.supported_pt_extensions.clear()
    folder_paths.supported_pt_extensions.update(extensions)
    folder_paths.configure(tmp_path / "base")


def touch(path: Path) -> Path:
    """An empty file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def change_folder(folder: Path) -> None:
    """Give a folder another mtime, also where the clock's steps are coarse."""
    stamp = folder.stat().st_mtime + 10
    os.utime(folder, (stamp, stamp))


# -- configuration -----------------------------------------------------------------------------------------


def test_configure_lays_everything_out_below_the_base(base: Path) -> None:
    assert folder_paths.base_path == str(base)
    assert folder_paths.models_dir == str(base / "models")
    assert folder_paths.get_output_directory() == folder_paths.output_directory == str(base / "output")
    assert folder_paths.get_input_directory() == folder_paths.input_directory == str(base / "input")
    assert folder_paths.get_temp_directory() == folder_paths.temp_directory == str(base / "temp")
    assert folder_paths.get_user_directory() == folder_paths.user_directory == str(base / "user")
    assert {path.name for path in base.iterdir()} == {"input", "output", "temp", "user"}


def test_configure_takes_other_working_folders(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_paths.configure("else", temp_directory=tmp_path / "t", output_directory="out")
    assert folder_paths.base_path == str(tmp_path / "else")
    assert folder_paths.get_temp_directory() == str(tmp_path / "t")
    assert folder_paths.get_output_directory() == str(tmp_path / "out")
    assert folder_paths.get_input_directory() == str(tmp_path / "else" / "input")
    assert (tmp_path / "t").is_dir()
    assert folder_paths.get_folder_paths("vae")[-1] == str(tmp_path / "out" / "vae")


def test_configure_keeps_files_and_the_dict_packages_hold(base: Path) -> None:
    table = folder_paths.folder_names_and_paths
    kept = touch(base / "temp" / "kept.png")
    folder_paths.add_model_folder_path("mine", "/somewhere")
    folder_paths.configure(base)
    assert folder_paths.folder_names_and_paths is table
    assert "mine" not in table
    assert kept.exists()


def test_importing_creates_no_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import discomfort.embedded.folder_paths"], cwd=empty, check=False, timeout=60
    )
    assert done.returncode == 0
    assert not list(empty.iterdir())


# -- the working folders -----------------------------------------------------------------------------------


def test_setters_change_what_getters_and_attributes_say() -> None:
    for name in ("input", "output", "temp", "user"):
        getattr(folder_paths, f"set_{name}_directory")(f"/new/{name}")
        assert getattr(folder_paths, f"get_{name}_directory")() == f"/new/{name}"
        assert getattr(folder_paths, f"{name}_directory") == f"/new/{name}"


def test_only_three_folders_are_reachable_by_type(base: Path) -> None:
    for name in ("input", "output", "temp"):
        assert folder_paths.get_directory_by_type(name) == str(base / name)
    for name in ("user", "models", "", "Output"):
        assert folder_paths.get_directory_by_type(name) is None


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [
        ("a.png", "a.png", None),
        ("a.png [output]", "a.png", "output"),
        ("sub/a b.png [input]", "sub/a b.png", "input"),
        ("a.png [temp]", "a.png", "temp"),
        ("a.png [user]", "a.png [user]", None),
        ("[output].png", "[output].png", None),
    ],
)
def test_annotation_names_the_folder(base: Path, name: str, file: str, folder: str | None) -> None:
    expected = str(base / folder) if folder else None
    assert folder_paths.annotated_filepath(name) == (file, expected)
    assert folder_paths.get_annotated_filepath(name) == str(base / (folder or "input") / file)


def test_default_folder_serves_names_without_annotation(base: Path) -> None:
    assert folder_paths.get_annotated_filepath("a.png", "/other") == os.path.join("/other", "a.png")
    assert folder_paths.get_annotated_filepath("a.png [temp]", "/other") == str(base / "temp" / "a.png")


def test_annotated_file_exists_in_its_folder_only(base: Path) -> None:
    touch(base / "output" / "a.png")
    assert folder_paths.exists_annotated_filepath("a.png [output]")
    assert not folder_paths.exists_annotated_filepath("a.png")


def test_input_subfolders_are_all_levels_with_slashes(base: Path) -> None:
    (base / "input" / "b" / "deep").mkdir(parents=True)
    (base / "input" / "a").mkdir()
    touch(base / "input" / "file.png")
    assert folder_paths.get_input_subfolders() == ["a", "b", "b/deep"]
    folder_paths.set_input_directory(str(base / "gone"))
    assert folder_paths.get_input_subfolders() == []


# -- model folders -----------------------------------------------------------------------------------------


def test_renamed_folders_answer_to_both_names(base: Path) -> None:
    assert folder_paths.map_legacy("unet") == "diffusion_models"
    assert folder_paths.map_legacy("clip") == "text_encoders"
    assert folder_paths.map_legacy("vae") == "vae"
    assert folder_paths.get_folder_paths("unet") == folder_paths.get_folder_paths("diffusion_models")
    folder_paths.add_model_folder_path("clip", "/more")
    assert folder_paths.get_folder_paths("text_encoders")[-1] == "/more"


def test_added_folder_is_last_or_first_and_never_twice() -> None:
    folder_paths.add_model_folder_path("mine", "/one")
    folder_paths.add_model_folder_path("mine", "/two")
    folder_paths.add_model_folder_path("mine", "/one")
    assert folder_paths.get_folder_paths("mine") == ["/one", "/two"]
    folder_paths.add_model_folder_path("mine", "/three", is_default=True)
    folder_paths.add_model_folder_path("mine", "/two", is_default=True)
    assert folder_paths.get_folder_paths("mine") == ["/two", "/three", "/one"]
    assert folder_paths.folder_names_and_paths["mine"][1] == set()


def test_folder_paths_are_a_copy_and_unknown_names_a_key_error() -> None:
    folder_paths.get_folder_paths("vae").clear()
    assert folder_paths.get_folder_paths("vae")
    with pytest.raises(KeyError):
        folder_paths.get_folder_paths("no_such")


def test_an_extension_added_by_a_package_counts_for_all_weights(base: Path) -> None:
    touch(base / "models" / "vae" / "a.gguf")
    assert folder_paths.get_filename_list("vae") == []
    folder_paths.supported_pt_extensions.add(".gguf")
    folder_paths.filename_list_cache.clear()
    assert folder_paths.get_filename_list("vae") == ["a.gguf"]


def test_full_path_is_the_first_folders_file(base: Path) -> None:
    folder_paths.folder_names_and_paths["mine"] = ([str(base / "one"), str(base / "two")], set())
    second = touch(base / "two" / "sub" / "a.bin")
    assert folder_paths.get_full_path("mine", "sub/a.bin") == str(second)
    first = touch(base / "one" / "sub" / "a.bin")
    assert folder_paths.get_full_path("mine", "sub/a.bin") == str(first)
    assert folder_paths.get_full_path("mine", "sub") is None
    assert folder_paths.get_full_path("no_such", "a.bin") is None


@pytest.mark.parametrize("name", ["../secret", "/../secret", "x/../../secret"])
def test_full_path_cannot_leave_the_folder(base: Path, name: str) -> None:
    touch(base / "secret")
    folder_paths.folder_names_and_paths["mine"] = ([str(base / "one")], set())
    assert folder_paths.get_full_path("mine", name) is None
    inside = touch(base / "one" / "secret")
    assert folder_paths.get_full_path("mine", name) == str(inside)


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege there")
def test_a_link_to_nowhere_is_skipped_and_said(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    (base / "one").mkdir()
    (base / "one" / "a").symlink_to(base / "gone")
    folder_paths.folder_names_and_paths["mine"] = ([str(base / "one")], set())
    with caplog.at_level(logging.WARNING, "discomfort.embedded.folder_paths"):
        assert folder_paths.get_full_path("mine", "a") is None
    assert "leads nowhere" in caplog.text


def test_a_missing_model_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"folder 'vae' with filename 'no\.pt'"):
        folder_paths.get_full_path_or_raise("vae", "no.pt")


# -- listings ----------------------------------------------------------------------------------------------


def test_list_holds_matching_files_of_all_folders_once_sorted(base: Path) -> None:
    folder_paths.add_model_folder_path("vae", str(base / "more"))
    for path in ("models/vae/z.pt", "models/vae/a/b.SAFETENSORS", "models/vae/readme.txt", "more/z.pt", "more/c.ckpt"):
        touch(base / path)
    touch(base / "models" / "vae" / ".git" / "hidden.pt")
    assert folder_paths.get_filename_list("vae") == [os.path.join("a", "b.SAFETENSORS"), "c.ckpt", "z.pt"]


def test_list_is_kept_while_nothing_changes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(base / "models" / "vae" / "a.pt")
    assert folder_paths.get_filename_list("vae") == ["a.pt"]
    folder_paths.get_filename_list("vae").clear()
    monkeypatch.setattr(folder_paths, "recursive_search", None)
    assert folder_paths.get_filename_list("vae") == ["a.pt"]


def test_list_follows_new_files_new_folders_and_vanished_ones(base: Path) -> None:
    vae = base / "models" / "vae"
    touch(vae / "sub" / "a.pt")
    assert folder_paths.get_filename_list("vae") == [os.path.join("sub", "a.pt")]
    touch(vae / "sub" / "b.pt")
    change_folder(vae / "sub")
    assert len(folder_paths.get_filename_list("vae")) == 2
    touch(base / "output" / "vae" / "saved.pt")
    assert len(folder_paths.get_filename_list("vae")) == 3
    for name in ("a.pt", "b.pt"):
        (vae / "sub" / name).unlink()
    (vae / "sub").rmdir()
    assert folder_paths.get_filename_list("vae") == ["saved.pt"]


def test_cache_helper_looks_at_each_folder_once(base: Path) -> None:
    vae = base / "models" / "vae"
    touch(vae / "a.pt")
    with folder_paths.cache_helper:
        assert folder_paths.get_filename_list("vae") == ["a.pt"]
        touch(vae / "b.pt")
        change_folder(vae)
        assert folder_paths.get_filename_list("vae") == ["a.pt"]
    assert folder_paths.get_filename_list("vae") == ["a.pt", "b.pt"]


def test_recursive_search_tells_files_and_folder_times(base: Path) -> None:
    root = base / "tree"
    touch(root / "a.txt")
    touch(root / "in" / "b.txt")
    touch(root / "out" / "c.txt")
    files, mtimes = folder_paths.recursive_search(str(root), ["out"])
    assert sorted(files) == ["a.txt", os.path.join("in", "b.txt")]
    assert mtimes == {str(path): path.stat().st_mtime for path in (root, root / "in")}
    assert folder_paths.recursive_search(str(base / "gone")) == ([], {})


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege there")
def test_recursive_search_follows_links_and_survives_dead_ones(base: Path) -> None:
    touch(base / "elsewhere" / "a.txt")
    (base / "tree").mkdir()
    (base / "tree" / "link").symlink_to(base / "elsewhere")
    (base / "tree" / "dead").symlink_to(base / "gone")
    files, _ = folder_paths.recursive_search(str(base / "tree"))
    assert sorted(files) == ["dead", os.path.join("link", "a.txt")]


def test_extensions_filter_and_sort() -> None:
    files = ["b.PT", "a.pt", "c.txt", "d"]
    assert folder_paths.filter_files_extensions(files, [".pt"]) == ["a.pt", "b.PT"]
    assert folder_paths.filter_files_extensions(files, {""}) == ["d"]
    assert folder_paths.filter_files_extensions(files, set()) == sorted(files)


def test_content_types_filter_in_order() -> None:
    files = ["z.webp", "a.png", "clip.mp4", "song.flac", "notes.txt", "unknown.zzz", "none", "thing.fbx"]
    assert folder_paths.filter_files_content_types(files, ["image"]) == ["z.webp", "a.png"]
    assert folder_paths.filter_files_content_types(files, ["video", "audio"]) == ["clip.mp4", "song.flac"]
    assert folder_paths.filter_files_content_types(files, ["model"]) == ["thing.fbx"]


# -- names of saved images ---------------------------------------------------------------------------------


def test_save_path_counts_on_from_the_highest_number(base: Path) -> None:
    output = folder_paths.get_output_directory()
    assert folder_paths.get_save_image_path("pic", output) == (os.path.join(output, ""), "pic", 1, "", "pic")
    for name in ("pic_00007_.png", "pic_00003_.png", "pic_x_.png", "picture_00099_.png", "pic2_00050_.png", "pic_"):
        touch(base / "output" / name)
    assert folder_paths.get_save_image_path("pic", output)[2] == 8


def test_save_path_makes_its_subfolder(base: Path) -> None:
    output = folder_paths.get_output_directory()
    folder, filename, counter, subfolder, prefix = folder_paths.get_save_image_path("a/b/pic", output)
    assert (folder, filename, counter) == (os.path.join(output, "a/b"), "pic", 1)
    assert (subfolder, prefix) == ("a/b", "a/b/pic")
    assert (base / "output" / "a" / "b").is_dir()


def test_save_path_ending_in_a_slash_counts_too(base: Path) -> None:
    """ComfyUI 0.3.64 would overwrite the first file for ever."""
    touch(base / "output" / "pic_00001_.png")
    assert folder_paths.get_save_image_path("pic/", folder_paths.get_output_directory())[1:3] == ("pic", 2)


def test_save_path_fills_in_sizes_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = time.strptime("2024-03-05 07:08:09", "%Y-%m-%d %H:%M:%S")
    monkeypatch.setattr(folder_paths.time, "localtime", lambda: moment)
    prefix = "%year%-%month%-%day%/%hour%%minute%%second%_%width%x%height%_%other%"
    result = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), 640, 480)
    assert result[4] == "2024-03-05/070809_640x480_%other%"
    assert (result[3], result[1]) == ("2024-03-05", "070809_640x480_%other%")


@pytest.mark.parametrize("prefix", ["../pic", "a/../../pic", "/tmp/pic", "../output2/pic"])
def test_save_path_outside_the_folder_is_refused_and_not_made(base: Path, prefix: str) -> None:
    with pytest.raises(Exception, match="Saving image outside the output folder is not allowed"):
        folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    assert not (base / "output2").exists()


def test_save_path_wants_the_folder_absolute_and_without_a_slash(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)
    with pytest.raises(ValueError, match="absolute and relative"):
        folder_paths.get_save_image_path("a/pic", "output")
    with pytest.raises(Exception, match="outside the output folder"):
        folder_paths.get_save_image_path("a/pic", f"{base}/output/")


# -- the real one ------------------------------------------------------------------------------------------

# Prints the results of calls of folder_paths; runs on both, with the base folder as its argument.
CALLS = """
import json, os, sys
base = sys.argv.pop()
f.set_input_directory(os.path.join(base, "input"))
f.set_output_directory(os.path.join(base, "output"))
f.set_temp_directory(os.path.join(base, "temp"))
f.add_model_folder_path("vae", os.path.join(base, "vae"))
f.add_model_folder_path("clip", os.path.join(base, "vae"), is_default=True)
f.add_model_folder_path("new", os.path.join(base, "vae"))
out = f.get_output_directory()
print(json.dumps([
    {name: sorted(extensions) for name, (_, extensions) in sorted(f.folder_names_and_paths.items())},
    {name: [os.path.relpath(p, f.models_dir) for p in f.get_folder_paths(name)[:2]]
     for name in ("loras", "diffusion_models", "controlnet", "configs", "diffusers", "classifiers")},
    [os.path.basename(p) for p in f.get_folder_paths("clip")][:1],
    [f.get_filename_list(name) for name in ("new",)],
    [os.path.normpath(f.get_annotated_filepath(name)) for name in ("a.png", "a b.png [output]", "c [temp]", "[input]")],
    [f.annotated_filepath(name) for name in ("a.png", "a b.png [output]")],
    [f.get_save_image_path(*call) for call in (
        ("pic", out), ("sub/pic", out, 3, 4), ("%width%_x", out, 3, 4), ("new/deep/n", out), ("", out))],
    f.filter_files_content_types(["a.png", "b.txt", "c.webp", "d.mp4", "e.JPG", "f"], ["image"]),
    f.get_input_subfolders(),
    f.get_full_path("new", "../a.pt"), f.get_full_path("new", "sub/b.pt"), f.get_full_path("nope", "a.pt"),
]))
"""


# What ComfyUI 0.29.0 has and 0.3.64 has not.
LATER_FOLDERS = {
    "background_removal",
    "datasets",
    "detection",
    "frame_interpolation",
    "geometry_estimation",
    "latent_upscale_models",
    "optical_flow",
}


@pytest.mark.real_comfyui
def test_results_equal_the_real_modules(tmp_path: Path) -> None:
    root = os.environ.get("COMFYUI_PATH")
    if not root:
        pytest.skip("needs a real ComfyUI: set COMFYUI_PATH to its folder")
    files = ["vae/a.pt", "vae/sub/b.pt", "output/pic_00004_.png", "output/sub/pic_00011_.png", "output/3_x_00002_.png"]
    for name in [*files, "input/deep/er/a.png", "temp/x"]:
        touch(tmp_path / name)
    python = Path(root) / "venv" / "bin" / "python"
    ours = "import discomfort.embedded.folder_paths as f\n"
    # The working folder comes first in sys.path: ComfyUI's own folder, and one that hides no module.
    real = "import sys; sys.argv.append(sys.argv[1]); del sys.argv[1]\nimport folder_paths as f\n"
    results = [
        json.loads(
            subprocess.run(
                [str(interpreter), "-c", imports + CALLS, str(tmp_path)],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            ).stdout
        )
        for interpreter, imports, folder in [
            (sys.executable, ours, tmp_path),
            (python if python.exists() else sys.executable, real, root),
        ]
    ]
    # The embedded server also has the folders that later versions than the real one have.
    mine, theirs = results[0][0], results[1][0]
    assert set(mine) - set(theirs) <= LATER_FOLDERS
    results[0][0] = {name: extensions for name, extensions in mine.items() if name in theirs}
    assert results[0] == results[1]


# -- names of later versions ---------------------------------------------------------------------------------


def test_models_can_lie_elsewhere(tmp_path: Path) -> None:
    """models_directory is the folder of all model folders; what else there is stays below the base folder."""
    folder_paths.configure(tmp_path / "base", models_directory=tmp_path / "weights")
    assert folder_paths.models_dir == str(tmp_path / "weights")
    assert folder_paths.get_folder_paths("vae")[0] == str(tmp_path / "weights/vae")
    assert folder_paths.get_folder_paths("optical_flow") == [str(tmp_path / "weights/optical_flow")]
    assert folder_paths.get_folder_paths("custom_nodes") == [str(tmp_path / "base/custom_nodes")]
    assert folder_paths.get_folder_paths("datasets") == [str(tmp_path / "base/datasets")]


def test_packages_have_folders_no_client_reaches(tmp_path: Path) -> None:
    """Below the user folder, under names that are no users'."""
    folder_paths.configure(tmp_path)
    user = tmp_path / "user"
    assert folder_paths.get_system_user_directory() == str(user / "__system")
    assert folder_paths.get_system_user_directory("my_cache") == str(user / "__my_cache")
    for name in ("", "_x", "__x", "a/b", "..", "a b"):
        with pytest.raises(ValueError, match=r"[Uu]ser name"):
            folder_paths.get_system_user_directory(name)
    assert folder_paths.get_public_user_directory("default") == str(user / "default")
    assert folder_paths.get_public_user_directory("__system") is None
    assert folder_paths.get_public_user_directory("") is None


@pytest.mark.parametrize(
    ("content_type", "dangerous"),
    [
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("image/svg+xml", True),
        ("application/rss+xml", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("text/plain", False),
        ("image/png", False),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_what_a_browser_would_run(content_type: str | None, dangerous: bool) -> None:
    """Whatever the case and the parameters."""
    assert folder_paths.is_dangerous_content_type(content_type) is dangerous


def test_a_link_leads_out_of_a_folder(tmp_path: Path) -> None:
    """is_within_directory follows it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "outside")
    within = folder_paths.is_within_directory
    assert within(str(inside), str(inside / "a/b"))
    assert within(str(inside), str(inside))
    for path in (inside / "link", inside / "../outside", tmp_path, inside / "a\0b"):
        assert not within(str(inside), str(path))
