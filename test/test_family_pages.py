"""Every family has a page with what a user needs, and every link and path in the pages leads somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from dit_policy_ros.policy.families import FAMILIES
from dit_policy_ros.policy.family_directory import BINDINGS
from dit_policy_ros.robot import load_robot

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "families"
SHIPPED = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "config" / "families").glob("*.yaml")}
families = pytest.mark.parametrize("family", FAMILIES)


def test_every_family_drives_a_robot():
    assert BINDINGS.keys() == FAMILIES.keys()


@families
def test_a_page_says_what_it_is_what_it_needs_and_how_to_launch_it(family):
    text = (PAGES / f"{family}.md").read_text()
    head, _, rest = text.partition("## Launch")
    launch, _, differences = rest.partition("## Where it differs from what one would expect")
    title, what = head.strip().split("\n\n")[:2]
    assert title.startswith("# ")
    assert len(what.split()) > 5
    for entry in ("- Checkpoint: ", "- Encoder: ", "- Robot: "):
        assert head.count(entry) == 1, entry
    commands = [line for line in launch.splitlines() if line.startswith("    ros2 launch dit_policy_ros ")]
    assert len(commands) == 1
    shipped = re.findall(r"`config/families/(\w+)\.yaml`", launch)
    assert shipped
    assert SHIPPED[shipped[0]]["family"] == family or family == "gr00t_n15"  # N1.5 takes the description of N1.6
    robot = re.search(r"robot:=(\w+)", commands[0]).group(1)
    assert load_robot(robot).name == robot
    assert SHIPPED[shipped[0]]["robot"] == robot
    assert differences.strip().startswith("- ")


@families
def test_the_table_of_families_names_the_page_and_its_description(family):
    table = (PAGES / "README.md").read_text()
    row = next(line for line in table.splitlines() if f"({family}.md)" in line)
    named = re.findall(r"`(\w+)`", row)
    assert all(name in SHIPPED for name in named)
    assert named or family == "gr00t_n15"


@pytest.mark.parametrize(
    "page", [*sorted(PAGES.glob("*.md")), ROOT / "docs" / "chunk_methods.md"], ids=lambda p: p.name
)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in re.findall(r"`((?:config|test|docs|models)/[\w./-]+)`", text):
        assert (ROOT / path.rstrip("/")).exists() or path.startswith("models/mine"), path
    for path in re.findall(r"`((?:guidance|samplers|caching|actions|policy|continuity)/[\w/]+\.py)`", text):
        places = (ROOT / "dit_policy_ros" / path, ROOT / "dit_policy_ros" / "policy" / path)
        assert any(place.exists() for place in places), path
