"""The documents say what is there: codes, parameters, commands, prices, and links that lead somewhere."""

import importlib
import re
import subprocess
import tomllib

import pytest
from ota_core.errors import RejectionCode

LONGEST_README = 150
LINK = re.compile(r"(?<!\\)\]\((?P<page>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")


def prose(page):
    """A page without its blocks and snippets of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page):
    """Every link to a file of the project: the file, and the anchor if there is one."""
    for link in LINK.finditer(prose(page)):
        if ":" not in link["page"]:
            target = page.parent / link["page"] if link["page"] else page
            yield target.resolve(), link["anchor"]


def anchors(page):
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        earlier = sum(1 for other in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other))
        found.append(f"{name}-{earlier}" if earlier else name)
    return found


def rows(text, first_column):
    """The first cells of the tables whose first column has this heading."""
    found = []
    for table in re.findall(rf"^\| {first_column} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        found += re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def documents(project):
    """Every page of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=project,
        capture_output=True,
        check=True,
        text=True,
    )
    pages = [project / name for name in listed.stdout.splitlines() if (project / name).exists()]
    assert len(pages) > 25
    return pages


@pytest.fixture(scope="module")
def prices(project):
    return tomllib.loads((project / "bench" / "prices.toml").read_text())


def test_readme_is_short(project):
    assert len((project / "README.md").read_text().splitlines()) <= LONGEST_README


def test_every_rejection_code_is_explained_in_order(project):
    page = (project / "docs" / "rejection-codes.md").read_text()
    assert rows(page, "code") == [code.value for code in RejectionCode]


def test_every_parameter_is_explained_as_in_its_template(project, template, database_template):
    page = (project / "docs" / "parameters.md").read_text()
    documented = {**template["Parameters"], **database_template["Parameters"]}
    assert rows(page, "parameter") == [*template["Parameters"], *database_template["Parameters"]]
    for name, parameter in documented.items():
        default = f" Default: `{parameter['Default']}`." if parameter.get("Default", "") != "" else ""
        assert f"\n| `{name}` | {parameter['Description']}{default} |\n" in page


def test_every_room_of_ota_core_is_on_the_map(project):
    core = project / "layers" / "ota_core" / "ota_core"
    page = (project / "CONTRIBUTING.md").read_text()
    [table] = re.findall(r"^\| room \|.*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    rooms = {f"{init.parent.name}/" for init in core.glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+/)` \|", table, re.MULTILINE)) == rooms


def test_every_link_leads_somewhere(documents, project):
    for page in documents:
        for target, anchor in links(page):
            where = f"{page.relative_to(project)}: {target.name}#{anchor}"
            assert target.exists(), where
            if anchor is not None:
                assert anchor in anchors(target), where


def test_every_file_that_is_named_exists(documents, project):
    folders = "api|bench|docs|events|firmware|functions|fuzz|layers|requirements|statemachine|tests|tools"
    for page in documents:
        for name in re.findall(rf"`((?:{folders})/[\w./-]+?)/?(?:::[^`]+)?`", page.read_text()):
            assert (project / name).exists() or "NNNN" in name, f"{page.relative_to(project)}: {name}"


def test_every_page_is_found_from_the_readme(documents, project):
    found, new = set(), {(project / "README.md").resolve()}
    while new:
        found |= new
        pages = (target / "README.md" if target.is_dir() else target for page in new for target, _ in links(page))
        new = {page for page in pages if page.suffix == ".md" and page.exists()} - found
    assert {page.resolve() for page in documents} - found == set()


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## When something is unavailable", "when-something-is-unavailable"),
        ("### `ReleaseAbortedAlarm`", "releaseabortedalarm"),
        ("# At scale, on paper: [costs](scale.md)", "at-scale-on-paper-costs"),
        ("## Who may use it?", "who-may-use-it"),
    ],
)
def test_anchors_are_named_as_github_names_them(tmp_path, heading, anchor):
    (tmp_path / "page.md").write_text(f"{heading}\n\n```sh\n# no heading\n```\n{heading}\n")
    assert anchors(tmp_path / "page.md") == [anchor, f"{anchor}-1"]


def test_every_make_target_that_is_named_exists(documents, project):
    targets = set(re.findall(r"^([a-z-]+):", (project / "Makefile").read_text(), re.MULTILINE))
    for page in documents:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
        assert set(named) <= targets, page.name


def test_prices_carry_one_date(documents, project, prices):
    for page in documents:
        dates = set(re.findall(r"\b[Pp]rices\s+of\s+([\d-]+)", page.read_text()))
        states_an_amount = re.search(r"\$\d|\bdollars\b", prose(page)) is not None
        assert dates == ({prices["as_of"]} if states_an_amount else set()), page.relative_to(project)


@pytest.fixture(scope="module")
def scale(project):
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(project / "bench")
        return importlib.import_module("scale")


def test_costs_are_those_of_the_prices_and_the_benchmarks(project, scale):
    measured = dict(re.findall(r"^\| [\w-]+ \| ([^|]+) \| ([\d,.]+) \|", benchmarks(project), re.MULTILINE))
    figures = scale.Figures(
        deliver=float(measured["ms of CPU per warm 64 KiB chunk"]),
        check_in=1000 / number(measured["check-ins per CPU-second, 1,000,000 devices"]),
        status=1000 / number(measured["statuses recorded per CPU-second, 1,000,000 devices"]),
    )
    page = (project / "docs" / "scale.md").read_text()
    for devices in scale.FLEETS:
        costs = [sum(scale.cost(devices, chunk, figures).values()) for chunk in (*scale.CHUNKS, None)]
        costs.append(scale.jobs_cost(devices))
        assert f"\n| {devices:,} | " + " | ".join(f"${cost:,.2f}" for cost in costs) + " | " in page
    for service, dollars in scale.cost(1_000_000, 64, figures).items():
        assert f"\n| {service} | {dollars:,.2f} |\n" in page


def test_readme_and_comparison_round_the_costs_of_a_million_devices(project):
    page = (project / "docs" / "scale.md").read_text()
    _, ours, _, _, jobs = re.search(r"^\| 1,000,000 " + 5 * r"\| \$(\S+) ", page, re.MULTILINE).groups()
    readme = (project / "README.md").read_text()
    assert f"${number(ours):.0f}, of which" in readme
    assert f"| ${number(ours):.0f}, see above |" in readme
    assert f"| ${round(number(jobs), -1):,.0f}; " in readme
    assert f"${ours} for a release" in (project / "docs" / "alternatives.md").read_text()


def test_what_attackers_can_cost_is_calculated_from_the_defaults(project, template, resources, prices):
    page = " ".join((project / "docs" / "security.md").read_text().split())
    default = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()}
    leaked = default["ApiQuotaPerDay"] * dollars(prices, default["SlotBytes"])
    assert f"with the defaults, cost up to about ${round(leaked, -1):.0f} a day" in page
    [settings] = resources["ConsoleApi"]["Properties"]["MethodSettings"]
    largest = max(file.stat().st_size for file in (project / "functions" / "serve_console" / "console").iterdir())
    outsider = settings["ThrottlingRateLimit"] * 30 * 86400 * dollars(prices, largest)
    assert f"at a cost of up to about ${round(outsider, -1):.0f} a month" in page


def dollars(prices, size):
    """What a request costs that a function of 512 MB answers with so many bytes, in at most 50 ms."""
    functions, logs, traces = prices["lambda"], prices["logs"], prices["x_ray"]
    return (
        prices["api_gateway"]["request"]
        + functions["request"]
        + functions["gb_second"] * 0.5 * 0.05
        + size / 1e9 * prices["data_transfer"]["gb"]
        + logs["gb"] * 1e-6  # about 1 KB
        + traces["trace"] * 0.05  # 5 % are traced
    )


def benchmarks(project):
    return (project / "docs" / "benchmarks.md").read_text()


def number(text):
    return float(text.replace(",", ""))
