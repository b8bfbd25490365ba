"""Each workflow in the host's real web page, in headless Chromium.

A template is opened by its address, as a click in the template browser does; where the page is too
old for that it is given what the click would fetch. Screenshots are in build/screenshots. What
the page itself says without any workflow is not counted against us.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from image_to_prompt.workflows.authoring import build
from image_to_prompt.workflows.authoring.node_specs import (
    CHECKPOINT,
    CLIP,
    NODE_SPECS,
    SDXL_CHECKPOINT,
)
from image_to_prompt.workflows.comfyui import hosts, server

try:
    import playwright.sync_api as playwright
except ImportError:
    playwright = None

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)
SCREENSHOTS = hosts.PACK / "build" / "screenshots"
PACK = "image-to-prompt"
WITHOUT_ADDRESSES = ("0.3.64",)  # hosts whose page opens templates by a click only
SECONDS = 180_000  # of patience, in the page's milliseconds: a CPU may be busy
PAGES = sorted(path for path in build.files() if path.parent == Path("."))
# What the workflows ask for; the last is what the one before it leaves behind.
MODEL_FILES = (
    ("checkpoints", CHECKPOINT),
    ("checkpoints", SDXL_CHECKPOINT),
    ("clip_vision", CLIP),
    ("projections", "fitted_00001_.safetensors"),
)
# What the page asks for and a new user does not have yet.
USER_FILES = ("user.css", "comfy.templates.json", "workflows/.keep", "subgraphs/.keep")

# Marks, not a skip of the whole file: so each test is counted, and with its reason.
pytestmark = [
    pytest.mark.skipif(
        playwright is None, reason="no browser: the Python package playwright is not installed"
    ),
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no browser: Chromium is neither on PATH nor named by the variable CHROMIUM",
    ),
]

COMPLAINTS = """async () => {
    const complaints = [];
    for (const node of window.app.graph._nodes) {
        if (!(node.type in LiteGraph.registered_node_types)) {
            complaints.push(`${node.type}: missing node`);
            continue;
        }
        const spec = LiteGraph.registered_node_types[node.type].nodeData;
        const widgets = Object.fromEntries((node.widgets || []).map(w => [w.name, w]));
        for (const [name, input] of Object.entries(spec?.input?.required || {})) {
            const socket = (node.inputs || []).find(i => i.name === name);
            const linked = socket && socket.link != null;
            if (!linked && !(name in widgets))
                complaints.push(`${node.type}.${name}: missing input`);
            const options = widgets[name]?.options?.values;
            if (Array.isArray(options) && !options.includes(widgets[name].value))
                complaints.push(`${node.type}.${name}: no ${widgets[name].value}`);
        }
        if (node.has_errors) complaints.push(`${node.type}: shown as an error`);
    }
    return complaints;
}"""


@pytest.fixture(scope="module")
def url(host_path, tmp_path_factory):
    """The host with files of the names that the workflows ask for; nothing is ever run."""
    base = tmp_path_factory.mktemp("page")
    for name in USER_FILES:
        (base / "user" / "default" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "user" / "default" / name).touch()
    (base / "user" / "default" / "comfy.templates.json").write_text("[]")
    for kind, name in MODEL_FILES:
        (base / "models" / kind).mkdir(parents=True, exist_ok=True)
        (base / "models" / kind / name).touch()
    for folder in (base / "input", base / "input" / "pictures"):
        folder.mkdir()
        shutil.copy(host_path / "input" / "example.png", folder)
    with server.start(hosts.host_in(host_path), base) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(url, chromium):
    """Opens the page, with a template or empty; gives it and the errors on its console."""
    pages = []

    def open_page(template: str | None = None):
        page = chromium.new_page(viewport={"width": 2560, "height": 1400})
        pages.append(page)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: _counts(m) and errors.append(f"{m.text} {_place(m)}"))
        query = f"?template={template}&source={PACK}" if template else ""
        page.goto(f"{url}/{query}", timeout=SECONDS)
        page.wait_for_function("window.app?.graph && window.LiteGraph", timeout=SECONDS)
        return page, errors

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def own_errors(opened):
    """What the page's console says with no workflow of ours, once it has nothing more to say."""
    page, errors = opened()
    page.wait_for_load_state("networkidle", timeout=SECONDS)
    known = None
    while known != len(errors):
        known = len(errors)
        page.wait_for_timeout(5000)
    return set(errors)


def _counts(message) -> bool:
    """Whether a console message is an error, other than of the page's own ways to the internet.

    A new user's page opens a graph of its own first and asks the internet about that graph's
    models, now or seconds later; a host without API nodes forbids it to.
    """
    return message.type == "error" and "Content Security Policy" not in message.text


def _place(message) -> str:
    """Where a console message came from, without the address of this run."""
    return re.sub(r"^https?://[^/]+", "", message.location.get("url", ""))


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part]


def _wait_for(page, count: int) -> None:
    page.wait_for_function(f"window.app.graph._nodes.length === {count}", timeout=SECONDS)
    page.wait_for_timeout(1500)  # dialogs come after the nodes


@pytest.fixture(scope="module", params=PAGES, ids=str)
def workflow(request, opened, url, host_path, own_errors):
    """One workflow opened in the page: its path, the page, the errors on its console."""
    # After own_errors: a browser asks for some files, like its icon, for the first page only.
    version = hosts.host_in(host_path).version
    nodes = json.loads(build.files()[request.param])["nodes"]
    for spec in (NODE_SPECS[node["type"]] for node in nodes if node["type"] in NODE_SPECS):
        if _parts(spec.since) > _parts(version):
            pytest.skip(f"this host has no {spec.title}, which came with {spec.since}")
    if version in WITHOUT_ADDRESSES:
        page, errors = opened()
        page.wait_for_timeout(1000)
        template = f"{url}/api/workflow_templates/{PACK}/{request.param.name}"
        page.evaluate("graph => window.app.loadGraphData(graph)", server.get_json(template))
    else:
        page, errors = opened(request.param.stem)
    _wait_for(page, len(nodes))
    (SCREENSHOTS / version).mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / version / f"{request.param.stem}.png")
    return request.param, page, errors


def test_every_workflow_is_listed_as_a_template(url):
    listed = server.get_json(f"{url}/api/workflow_templates")[PACK]
    assert sorted(listed) == [path.stem for path in PAGES]


def test_a_workflow_opens_whole_and_without_a_complaint(workflow, own_errors):
    _, page, errors = workflow
    assert page.evaluate(COMPLAINTS) == []
    assert not re.search(r"missing|unknown|not found", page.inner_text("body"), re.IGNORECASE)
    assert set(errors) - own_errors == set()


def test_the_page_makes_of_a_workflow_exactly_its_api_file(workflow):
    path, page, _ = workflow
    made = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    twin = json.loads(build.files()[Path("api", f"{path.stem.split('_', 1)[1]}.json")])
    for node in (*made.values(), *twin.values()):
        node.pop("_meta", None)
        node["inputs"].pop("upload", None)  # a button, sent along by some versions of the page
    assert made == twin


def test_a_missing_node_and_a_missing_file_would_be_noticed(opened):
    graph = json.loads(build.files()[PAGES[0]])
    for node in graph["nodes"]:
        node["type"] = node["type"].replace("ImageToPromptEmbed", "NoSuchNode")
        if node["type"] == "CLIPVisionLoader":
            node["widgets_values"] = ["absent.safetensors"]
    page, _ = opened()
    page.wait_for_timeout(1000)
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    _wait_for(page, len(graph["nodes"]))
    complaints = page.evaluate(COMPLAINTS)
    assert "NoSuchNode: missing node" in complaints
    assert "CLIPVisionLoader.clip_name: no absent.safetensors" in complaints
