"""Node packages: which names of ComfyUI they find, what these do, and what becomes of packages that are broken.

The packages are in the folder ``packs`` or written below as text; each server gets all of them at once, because a
package that fails must do no harm to the others.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from conformance import driver
from conformance.differences import expected

node, link = driver.node, driver.link

PACKS = Path(__file__).resolve().parent / "packs"

# A package with one node; what else it does is put in front.
_NODE = """
class Node:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    CATEGORY = "conformance"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        return ("ran",)

NODE_CLASS_MAPPINGS = {"NAME": Node}
"""

# Packages that cannot be loaded: file -> (content, the reason in the log).
BROKEN = {
    "syntax.py": ("def (:\n", "invalid syntax"),
    "dependency.py": ("import no_such_library_anywhere\n", "No module named 'no_such_library_anywhere'"),
    "raises.py": ("raise ValueError('as intended')\n", "as intended"),
    "absent_name.py": ("from comfy.sd import NoSuchName\n", "cannot import name 'NoSuchName' from 'comfy.sd'"),
    "absent_module.py": ("import comfy.no_such_module\n", "No module named 'comfy.no_such_module'"),
    "list_of_nodes.py": ("NODE_CLASS_MAPPINGS = [1]\n", "'list' object has no attribute 'items'"),
    "not_classes.py": ("NODE_CLASS_MAPPINGS = {'NotAClass': 1}\n", "'int' object has no attribute"),
    "titles.py": (
        _NODE.replace("NAME", "OkTitles") + "NODE_DISPLAY_NAME_MAPPINGS = 3\n",
        "'int' object is not iterable",
    ),
    "no_init/code.py": ("x = 1\n", "No such file or directory"),
    # `utils` is a package of ComfyUI, which was imported before.
    "takes_utils/__init__.py": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nfrom utils import of_the_package\n",
        "cannot import name 'of_the_package' from 'utils'",
    ),
    "takes_utils/utils.py": ("of_the_package = 1\n", ""),
    "own_loop.py": ("import asyncio\nasyncio.run(asyncio.sleep(0))\n", "cannot be called from a running event loop"),
}

# Packages that are odd and yet work: file -> what they do beside their one node, named "Ok" and the file's name.
ODD = {
    "prints.py": "print('printed by a package')",
    "moves.py": """
        import os, sys
        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        sys.path.insert(0, '/no/such/folder')
        sys.argv[:] = ['somebody', '--else']
        """,
    "threads.py": """
        import threading, time
        threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()
        """,
    "loops.py": "import asyncio\nasyncio.set_event_loop(asyncio.new_event_loop())",
    "slow.py": "import time\ntime.sleep(0.4)",
    "warns.py": "import warnings\nwarnings.warn('a package warns')",
    "handlers.py": """
        from server import PromptServer

        def raises(json_data):
            raise ValueError('a handler of a package')

        def adds(json_data):
            json_data['extra_data'] = {**json_data.get('extra_data', {}), 'added': 'by a package'}
            return json_data

        PromptServer.instance.add_on_prompt_handler(raises)
        PromptServer.instance.add_on_prompt_handler(adds)
        """,
    "patches.py": """
        from aiohttp import web
        from server import PromptServer
        SENT = []
        before = PromptServer.send_sync

        def send_sync(self, event, data, sid=None):
            SENT.append(event)
            return before(self, event, data, sid)

        PromptServer.send_sync = send_sync

        @PromptServer.instance.routes.get('/conformance/sent')
        async def sent(request):
            return web.json_response([event for event in SENT if isinstance(event, str)])
        """,
    # As packages do that pass messages on to somebody else.
    "passes_on.py": """
        import types
        from aiohttp import web
        from server import PromptServer
        PASSED = []
        instance = PromptServer.instance
        send_json, send_bytes = instance.send_json, instance.send_bytes

        async def pass_json(self, event, data, sid=None):
            PASSED.append([event, data.get('prompt_id'), sid])
            await send_json(event, data, sid)

        async def pass_bytes(self, event, data, sid=None):
            PASSED.append([int(event), bytes(data[:8]).hex(), sid])
            await send_bytes(event, data, sid)

        instance.send_json = types.MethodType(pass_json, instance)
        instance.send_bytes = types.MethodType(pass_bytes, instance)

        @instance.routes.get('/conformance/passed')
        async def passed(request):
            return web.json_response(PASSED)
        """,
    "routes.py": """
        from aiohttp import web
        from server import PromptServer
        routes = PromptServer.instance.routes

        @routes.get('/queue')
        async def queue(request):
            return web.json_response('of a package')

        @routes.get('/settings')
        async def settings(request):
            return web.json_response('of a package')

        @routes.post('/conformance/{name}')
        async def named(request):
            return web.json_response([request.match_info['name'], await request.json()])
        """,
    "own_names/__init__.py": """
        from .utils import VALUE
        from .nodes import OTHER
        from . import server
        assert (VALUE, OTHER, server.THIRD) == (1, 2, 3)
        """,
    "web_outside/__init__.py": "WEB_DIRECTORY = '../shared_web'",
    "web_missing/__init__.py": "WEB_DIRECTORY = './no_such_folder'",
    "web_declared/__init__.py": "",
    "web_file.py": "WEB_DIRECTORY = './shared_web'",
    "prestart/__init__.py": "",
    "imports_another/__init__.py": "",
}

FILES = {
    "own_names/utils.py": "VALUE = 1\n",
    "own_names/nodes.py": "OTHER = 2\n",
    "own_names/server.py": "THIRD = 3\n",
    "shared_web/shared.js": "// of several packages\n",
    "web_declared/pyproject.toml": "[project]\nname = 'declared-name'\n[tool.comfy]\nweb = 'js'\n",
    "web_declared/js/declared.js": "// named in pyproject.toml\n",
    "prestart/prestartup_script.py": "raise ValueError('a script of a package')\n",
    "off.disabled/__init__.py": _NODE.replace("NAME", "OkDisabled"),
    "note.txt": "no package\n",
    "no_nodes.py": "x = 1\n",
    # ComfyUI's own nodes are not replaced, those that need models neither.
    "reserved.py": _NODE.replace('{"NAME": Node}', '{"ImageScale": Node, "KSampler": Node, "OkReserved": Node}'),
    # As packages do that repair prompts before they are looked at.
    "wraps.py": """
        import execution
        validate_prompt = execution.validate_prompt

        async def repair_and_validate(prompt_id, prompt, *others):
            for node in prompt.values():
                if node.get('class_type') == 'NameThatIsGone':
                    node['class_type'] = 'TinyShow'
            return tuple(await validate_prompt(prompt_id, prompt, *others))

        execution.validate_prompt = repair_and_validate
        """,
    "inputs_raise.py": _NODE.replace('return {"required": {}}', "raise ValueError('no inputs today')").replace(
        "NAME", "InputsRaise"
    ),
}

# Packages that end ComfyUI itself.
DEADLY = {
    "exit": {"exits.py": "import sys\nsys.exit(3)\n"},
    "exit before": {"exits/prestartup_script.py": "import sys\nsys.exit(3)\n", "exits/__init__.py": _NODE},
    "route twice": {
        "twice.py": """
            from aiohttp import web
            from server import PromptServer

            @PromptServer.instance.routes.get('/conformance/twice')
            async def first(request):
                return web.json_response('first')

            @PromptServer.instance.routes.get('/conformance/twice')
            async def second(request):
                return web.json_response('second')
            """
    },
}


def _odd_name(file: str) -> str:
    """The class type of an odd package's node."""
    return "Ok" + file.removesuffix("/__init__.py").removesuffix(".py").title().replace("_", "")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(content), encoding="utf-8")


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Server]:
    """A server with all packages that are not deadly, and one file of a LoRA."""
    base = tmp_path_factory.mktemp(f"packs-{kind}")
    packages = base / "custom_nodes"
    driver.install_pack(base)
    shutil.copytree(PACKS / "names", packages / "names")
    _write(packages, {name: content for name, (content, _) in BROKEN.items()})
    _write(
        packages, {name: textwrap.dedent(text) + _NODE.replace("NAME", _odd_name(name)) for name, text in ODD.items()}
    )
    _write(packages, FILES)
    _write(base, {"models/loras/tiny.safetensors": ""})
    server = getattr(driver.Server, kind)(base)
    try:
        yield asyncio.run(server.wait_until_ready())
    finally:
        server.stop()


@pytest_asyncio.fixture
async def client(server: driver.Server) -> AsyncIterator[driver.Client]:
    """A client of the server with all packages."""
    async with driver.connect(server) as client:
        yield client


# -- names ---------------------------------------------------------------------------------------------------

# Question of packs/names -> what ComfyUI answers.
ANSWERS: dict[str, Any] = {
    "kinds": [True, True, True, True, False, True, True, "EPS", "outer_sample"],
    "absent": ["ImportError", "ModuleNotFoundError", "ModuleNotFoundError", "ImportError"],
    "absent_attributes": [False, False, False, False, False, False, False],
    "other_imports": {},
    "top_level": [],
    "patching": ["mine", True],
    "samplers": [
        ["euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp"],
        ["ddim", "uni_pc", "uni_pc_bh2"],
        [
            "simple",
            "sgm_uniform",
            "karras",
            "exponential",
            "ddim_uniform",
            "beta",
            "normal",
            "linear_quadratic",
            "kl_optimal",
        ],
        True,
        True,
        ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"],
    ],
    "core_nodes": [
        16384,
        ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"],
        ["disabled", "center"],
        "output",
        "temp",
        True,
        True,
        True,
    ],
    "model_nodes": [
        True,
        ["MODEL", "CLIP"],
        "load_lora",
        ["model", "clip", "lora_name", "strength_model", "strength_clip"],
        ["tiny.safetensors"],
        True,
        100.0,
        ["MODEL", "CLIP", "VAE"],
    ],
    "arguments": [True, 512, False, [], True, "127.0.0.1", None, 512],
    "devices": [
        "cpu",
        "cpu",
        "cpu",
        "cpu",
        "cpu",
        True,
        False,
        False,
        False,
        "CPU",
        "DISABLED",
        [],
        2,
        False,
        False,
        True,
        "torch.float32",
        "torch.float32",
        True,
        True,
        True,
        "cpu",
    ],
    "types": ["*", "IMAGE", "FLOAT,INT", True, True, True],
    "graph": [
        {"p.1": {"class_type": "A", "inputs": {"x": 1}}, "p.2": {"class_type": "B", "inputs": {"y": ["p.1", 0]}}},
        True,
        False,
        "why",
    ],
    "noise": [
        [[-0.1468, 0.7861, 0.9468, -1.1143], [2, 1, 1, 2], "torch.float32"],
        [[0.9468, -1.1143, 0.9468, -1.1143], [2, 1, 1, 2], "torch.float32"],
        [[-0.3556, 1.2324, 0.9468, -1.1143], [2, 1, 1, 2], "torch.float32"],
    ],
    "sigmas": [
        [[10.0, 2.9341, 0.6629, 0.1, 0.0], [5], "torch.float32"],
        [[10.0, 2.1544, 0.4642, 0.1, 0.0], [5], "torch.float32"],
        [[10.0, 0.7743, 0.1668, 0.1, 0.0], [5], "torch.float32"],
        [[152.167, 9.4032, 1.462, 0.0105, 0.0], [5], "torch.float32"],
        [[10.0, 1.4507, 0.1, 0.0], [4], "torch.float32"],
        [[10.0, 1.0, 0.1, 0.0], [4], "torch.float32"],
        [[10.0, 1.0, 0.1, 0.0], [4], "torch.float32"],
        "ValueError",
    ],
    "batches": [
        [[0.0, 0.01, 0.02, 0.03, 0.0, 0.01, 0.02, 0.03, 0.0, 0.01], [5, 2], "torch.float32"],
        [[0.0, 0.0, 0.01, 0.02, 0.02], [5, 1], "torch.float32"],
        [[0.0, 0.02, 0.04], [3, 1], "torch.float32"],
        [[0.0], [1, 1], "torch.float32"],
        [1, 3, 4, 6],
        [1, 1, 2, 2, 2],
    ],
    "masks": [
        [
            [0.0, 0.0025, 0.0075, 0.01, 0.005, 0.0075, 0.0125, 0.015, 0.015, 0.0175, 0.0225, 0.025],
            [2, 3, 4, 4],
            "torch.float32",
        ],
        [[0.0, 0.005, 0.01, 0.02, 0.025, 0.03], [1, 1, 2, 3], "torch.float32"],
        [[0.0, 0.01, 0.02, 0.03, 0.0, 0.01, 0.02, 0.03, 0.0, 0.01, 0.02, 0.03], [1, 1, 3, 2, 2], "torch.float32"],
        [[0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 5.0, 5.01, 0.11], [1, 1, 4, 4], "torch.float32"],
        [[0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.2082], [1, 1, 4, 4], "torch.float32"],
        [[0.025, 0.045, 0.105, 0.125], [1, 1, 2, 2], "torch.float32"],
    ],
    "tiles": [
        [[0.15, 0.15, 0.16, 0.16, 0.17, 0.17, 0.19, 0.2, 0.22, 0.22, 0.23, 0.23], [1, 1, 14, 18], "torch.float32"],
        6,
        6,
        [[1, 1, 4, 4], [1, 1, 4, 4], [1, 1, 4, 3]],
        [[0.0, 0.02, 0.04, 0.06], [1, 1, 4], "torch.float32"],
        [
            [0.015, 0.015, 0.025, 0.025, 0.015, 0.015, 0.025, 0.025, 0.035, 0.035, 0.045, 0.045],
            [2, 1, 4, 4],
            "torch.float32",
        ],
    ],
    "tensor_dicts": [
        9,
        5,
        "torch.float16",
        "None",
        ["b", "c.x", "c.y"],
        ["x", "y"],
        ["b"],
        ["a.x", "a.y", "z"],
        [1, 5, 1.0, 2.0],
        False,
    ],
    "files": [
        [[0.0, 0.01], [2], "torch.float32"],
        {"made": "here"},
        [[0.0, 0.01, 0.02], [3], "torch.float32"],
        ["__metadata__", "a"],
        None,
        "SafetensorError",
        "FileNotFoundError",
    ],
    "prompt_weights": [
        [
            [["a ", 1.0], ["red", 1.5], [" cat", 1.0]],
            [["a", 2.2], [" b", 2.0], [" ", 1.0], ["(c", 1.0]],
            [["a) (b) c", 1.0]],
            [["no: number", 1.1]],
            [["(a\x00\x01 b", 1.0]],
            [],
            [[":3", 1.1]],
            [["a ", 1.1], ["b", 0.5], [" c", 1.1]],
        ],
        [
            ["a ", "(red:1.5)", " cat"],
            ["((a) b:2)", " ", "(c"],
            ["a) (b) c"],
            ["(no: number)"],
            ["(a\\)", " b"],
            [],
            ["(:3)"],
            ["(a (b:0.5) c)"],
        ],
        ["a (red:1.5) cat", "((a) b:2) (c", "a) (b) c", "(no: number)", "(a) b", "", "(:3)", "(a (b:0.5) c)"],
    ],
    "save_paths": [
        ["a", "b3", 1, "a", "a/b3"],
        [
            "Exception",
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            " full_output_folder: TEMP\n"
            "         output_dir: TEMP/\n"
            "         commonpath: TEMP",
        ],
        [
            "Exception",
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            " full_output_folder: BASE\n"
            "         output_dir: TEMP\n"
            "         commonpath: BASE",
        ],
        ["ValueError", "Can't mix absolute and relative paths"],
    ],
    "casts": [[[0.0, 0.01], [2], "torch.float16"], True, False, [[0.0, 0.01], [2], "torch.float64"]],
    "conditioning": [[[1, {"a": [2], "b": 3}]], [[1, {"a": [1, 2]}]], "torch.bfloat16", None],
    "latent_colours": ["JPEG", [3, 2], 512, [[127, 203, 159], [133, 216, 159], [140, 229, 159]]],
    "nodes_called": [
        [[0.0, 0.01, 0.02, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.03, 0.04, 0.05], [1, 4, 4, 3], "torch.float32"],
        [[1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.9, 0.89], [1, 2, 2, 3], "torch.float32"],
        [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [2, 4, 1, 2], "torch.float32"],
        [[0.0, 0.015, 0.03, 0.045, 0.06, 0.075, 0.09, 0.105, 0.12, 0.135, 0.15, 0.165], [1, 2, 2, 3], "torch.float32"],
        "temp",
    ],
    "conditioning_nodes": [
        [
            [
                [[0.0, 0.01, 0.02, 0.03, 0.04, 0.05], [1, 3, 2], "torch.float32"],
                {"pooled_output": [[0.0, 0.01], [1, 2], "torch.float32"]},
            ],
            [[[0.0, 0.01], [1, 1, 2], "torch.float32"], {"a": 1}],
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {"pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"]},
            ],
        ],
        [
            [
                [[0.75, 0.76, 0.77, 0.78, 0.01, 0.0125], [1, 3, 2], "torch.float32"],
                {"pooled_output": [[0.75, 0.76], [1, 2], "torch.float32"]},
            ],
            [
                [[0.75, 0.76], [1, 1, 2], "torch.float32"],
                {"a": 1, "pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"]},
            ],
        ],
        [
            [
                [[0.0, 0.01, 0.02, 0.03, 0.04, 0.05], [1, 3, 2], "torch.float32"],
                {"pooled_output": [[0.0, 0.01], [1, 2], "torch.float32"]},
            ],
            [[[0.0, 0.01], [1, 1, 2], "torch.float32"], {"a": 1}],
        ],
        [
            [
                [[0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 1.0, 1.01, 1.02, 1.03], [1, 5, 2], "torch.float32"],
                {"pooled_output": [[0.0, 0.01], [1, 2], "torch.float32"]},
            ],
            [[[0.0, 0.01, 1.0, 1.01, 1.02, 1.03], [1, 3, 2], "torch.float32"], {"a": 1}],
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {
                    "pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"],
                    "area": [16, 8, 2, 1],
                    "strength": 0.5,
                    "set_area_to_bounds": False,
                },
            ]
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {
                    "pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"],
                    "area": ["percentage", 0.25, 0.5, 1, 0],
                    "strength": 2,
                    "set_area_to_bounds": False,
                },
            ]
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {"pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"], "strength": 0.5},
            ]
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {
                    "pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"],
                    "mask": [[0.0, 0.01, 0.02, 0.03], [1, 2, 2], "torch.float32"],
                    "set_area_to_bounds": True,
                    "mask_strength": 0.5,
                },
            ]
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {
                    "pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"],
                    "mask": [[0.0, 0.01, 0.02, 0.03], [1, 2, 2], "torch.float32"],
                    "set_area_to_bounds": False,
                    "mask_strength": 0.5,
                },
            ]
        ],
        [
            [
                [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1, 3, 2], "torch.float32"],
                {"pooled_output": [[0.0, 0.0], [1, 2], "torch.float32"]},
            ],
            [[[0.0, 0.0], [1, 1, 2], "torch.float32"], {"a": 1}],
        ],
        [
            [
                [[1.0, 1.01, 1.02, 1.03], [1, 2, 2], "torch.float32"],
                {"pooled_output": [[1.0, 1.01], [1, 2], "torch.float32"], "start_percent": 0.1, "end_percent": 0.9},
            ]
        ],
    ],
    "server": ["PromptServer", True, "1", True, 1, 1, True, True],
    "root": [True, True, True],
}


# Since 0.30 the links in a folder's path count, and where it is taken from; the error has a line less.
_SAVE_PATHS_LATER = [
    ["a", "b3", 1, "a", "a/b3"],
    [".", "a", 1, "", "a"],
    [
        "Exception",
        "**** ERROR: Saving image outside the output folder is not allowed.\n"
        " full_output_folder: BASE\n"
        "         output_dir: TEMP",
    ],
]


@pytest.mark.parametrize("question", ANSWERS)
async def test_names_are_there_and_do_what_they_do_in_comfyui(
    client: driver.Client, server: driver.Server, question: str
) -> None:
    run = await client.run({"1": node("NamesProbe", question=question)})
    assert run.data("execution_error") == []
    answers = json.loads(run.shown("1")[0])
    if question == "save_paths" and not server.is_embedded and server.version >= (0, 30):
        # The relative folder is one in whatever folder that ComfyUI was started in.
        assert (answers[:3], len(answers)) == (_SAVE_PATHS_LATER, 4)
        return
    assert answers == ANSWERS[question]


async def test_model_code_is_there_by_name_only(client: driver.Client, server: driver.Server) -> None:
    run = await client.run({"1": node("NamesProbe", question="models")})
    raised = expected(server, "model code", comfyui="TypeError", embedded="NotInEmbeddedServer")
    assert json.loads(run.shown("1")[0]) == [raised] * 3


async def test_a_node_derived_from_a_node_of_models_is_described_by_what_it_inherits(client: driver.Client) -> None:
    described = (await client.get("/object_info/NamesLoader"))["NamesLoader"]
    assert described["output"] == ["MODEL", "CLIP"]
    assert described["python_module"] == "custom_nodes.names"
    assert described["input"]["required"]["lora_name"][0] == ["tiny.safetensors"]
    assert described["input_order"] == {"required": ["model", "clip", "lora_name", "strength_model", "strength_clip"]}


# -- packages that fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [file for file, (_, reason) in BROKEN.items() if reason])
async def test_a_broken_package_fails_alone_and_the_log_has_its_reason(server: driver.Server, file: str) -> None:
    path = server.base / "custom_nodes" / (file.partition("/")[0])
    log = server.log()
    (reason,) = [line for line in log.splitlines() if f"Cannot import {path} module for custom nodes:" in line]
    assert BROKEN[file][1] in reason
    assert any(line.endswith(f"seconds (IMPORT FAILED): {path}") for line in log.splitlines())


async def test_what_a_package_offered_before_it_failed_stays(client: driver.Client) -> None:
    described = await client.get("/object_info")
    assert "OkTitles" in described


async def test_a_package_without_nodes_is_skipped_with_a_reason(server: driver.Server) -> None:
    path = f"{server.base}/custom_nodes/no_nodes.py"
    reason = "module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or"
    assert f"Skip {path} {reason}" in server.log()
    assert f"(IMPORT FAILED): {path}" in server.log()


async def test_a_file_that_is_no_module_is_no_package(server: driver.Server) -> None:
    assert "custom_nodes/note.txt" not in server.log()


@pytest.mark.parametrize("file", ODD)
async def test_an_odd_package_works_as_others_do(client: driver.Client, file: str) -> None:
    class_type = _odd_name(file)
    run = await client.run({"1": node(class_type), "9": node("TinyShow", value=link("1"))})
    assert run.shown("9") == ["ran"]


async def test_a_disabled_folder_is_no_package(client: driver.Client) -> None:
    assert await client.get("/object_info/OkDisabled") == {}


async def test_a_package_cannot_replace_comfyuis_own_nodes(client: driver.Client) -> None:
    described = await client.get("/object_info")
    assert described["ImageScale"]["python_module"] == "nodes"
    assert described.get("KSampler", {"python_module": "nodes"})["python_module"] == "nodes"
    assert described["OkReserved"]["python_module"] == "custom_nodes.reserved"


async def test_a_node_whose_inputs_raise_is_not_described_and_the_others_are(
    client: driver.Client, server: driver.Server
) -> None:
    assert "InputsRaise" not in await client.get("/object_info")
    assert "ValueError: no inputs today" in server.log()


async def test_a_package_whose_first_script_fails_is_loaded_nevertheless(
    client: driver.Client, server: driver.Server
) -> None:
    script = server.base / "custom_nodes/prestart/prestartup_script.py"
    assert f"Failed to execute startup-script: {script} / a script of a package" in server.log()
    assert "OkPrestart" in await client.get("/object_info/OkPrestart")


# -- what packages add to the server -------------------------------------------------------------------------


async def test_browser_files_are_served_from_the_folders_packages_name(
    client: driver.Client, server: driver.Server
) -> None:
    listed = [path for path in await client.get("/extensions") if not path.startswith("/extensions/core")]
    ours = {path for path in listed if path.endswith(("/shared.js", "/declared.js"))}
    # A package that is a file is named by its path, under which nothing is found.
    of_file = f"/extensions/{server.base}/custom_nodes/web_file/shared.js"
    assert ours == {"/extensions/web_outside/shared.js", "/extensions/declared-name/declared.js", of_file}
    for path in ours:
        async with client.session.get(client.url + path) as answer:
            assert answer.status == (404 if path == of_file else 200), path


async def test_a_route_of_a_package_gives_way_to_earlier_ones_and_stands_before_later_ones(
    client: driver.Client,
) -> None:
    assert set(await client.get("/queue")) == {"queue_running", "queue_pending"}
    assert await client.get("/settings") == "of a package"
    assert await client.get("/api/settings") == "of a package"
    assert await client.post("/conformance/a%20b", {"c": 1}) == (200, '["a b", {"c": 1}]')
    assert await client.post("/api/conformance/x", 2) == (200, '["x", 2]')


async def test_what_a_package_puts_in_the_place_of_send_sync_gets_all_messages(client: driver.Client) -> None:
    run = await client.run({"1": node("OkPrints"), "9": node("TinyShow", value=link("1"))})
    seen = await client.get("/conformance/sent")
    assert set(run.types()) <= set(seen)
    assert {"status", "execution_start", "executing", "executed", "execution_success", "progress_state"} <= set(seen)


async def test_what_a_package_puts_in_the_place_of_coroutines_that_send_gets_all_messages(
    client: driver.Client,
) -> None:
    """In the order in which clients get them, also those to a client that is not there; previews as they are sent."""
    run = await client.run(
        {"1": node("TinySteps", steps=2, seconds=0.0, preview=True, seed=77), "9": node("TinyShow", value=link("1"))}
    )
    passed = await client.get("/conformance/passed")
    mine = [event for event, _, sid in passed if sid == client.sid and event not in ("status", "feature_flags")]
    assert mine == [kind for kind in run.types() if kind not in ("status", "feature_flags")]
    assert 1 in mine
    previews = [start for event, start, sid in passed if event == 1 and sid == client.sid]
    assert previews == [data[:8].hex() for kind, data in run.messages if kind == 1]
    _, body = await client.queue({"9": node("TinyShow", value="nobody")}, client_id="somebody who is not there")
    await client.receive_until("status", status={"exec_info": {"queue_remaining": 0}})
    seen = [event for event, prompt_id, _ in await client.get("/conformance/passed") if prompt_id == body["prompt_id"]]
    assert {"execution_start", "executed", "execution_success"} <= set(seen)


async def test_what_a_package_puts_in_the_place_of_validate_prompt_is_asked(client: driver.Client) -> None:
    """It changes a prompt that would be refused."""
    run = await client.run({"1": driver.node("NameThatIsGone", value=5)})
    assert run.status == 200, run.response
    assert run.shown("1") == [5]


async def test_a_handler_of_prompts_may_raise_and_another_change_the_prompt(client: driver.Client) -> None:
    run = await client.run({"9": node("TinyShow", value="x")})
    assert run.history["prompt"][3]["added"] == "by a package"


# -- packages that end ComfyUI -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DEADLY)
async def test_a_package_that_ends_comfyui(kind: str, how: str, tmp_path: Path) -> None:
    _write(tmp_path / "custom_nodes", DEADLY[how])
    server = getattr(driver.Server, kind)(tmp_path)
    try:
        outcome: Any = "runs"
        try:
            await server.wait_until_ready()
        except AssertionError:
            outcome = "ended"
        assert outcome == expected(server, "a package that ends the server", comfyui="ended", embedded="runs")
        if outcome == "runs" and how == "route twice":
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/conformance/twice") as answer:
                assert await answer.json() == "first"
        if outcome == "runs" and how != "route twice":
            assert "it ended the process with status 3" in server.log()
    finally:
        server.stop()
