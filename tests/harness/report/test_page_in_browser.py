"""The page in a browser: nothing fails, tables sort, filter, turn pages and hide columns, pictures can be saved.

axe-core looks at it as well, by the rules for people who do not see it, or see it otherwise.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from importlib.resources import files
from importlib.util import find_spec

import pytest
from records_at_random import every_fate

from harness.report import html
from harness.report.document import build
from harness.report.page import Column, Section, table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

_LISTEN = """<script>
window.wrong = [];
addEventListener('error', (event) => wrong.push(String(event.message)));
addEventListener('securitypolicyviolation', (event) => wrong.push('blocked: ' + event.blockedURI));
for (const name of ['error', 'warn']) console[name] = (...said) => wrong.push(said.join(' '));
</script>"""

_PROBE = """<script>
const box = [...document.querySelectorAll('.table')].find((each) => each.dataset.name === 'Numbers');
const rows = () => [...box.querySelectorAll('tbody tr')];
const first = (column) => rows().slice(0, 3).map((row) => row.cells[column]?.textContent);
const status = () => box.querySelector('[role=status]').textContent;
const button = (name) => [...box.querySelectorAll('button')].find((each) => each.textContent === name);
const out = { ready: document.documentElement.dataset.ready, start: first(0), size: rows().length };
const [name, number] = box.querySelectorAll('thead button');
number.click(); out.ascending = first(1); out.sorted = box.querySelectorAll('th')[1].getAttribute('aria-sort');
number.click(); out.descending = first(1);
number.click(); out.asBefore = first(0);
button('after ›').click(); out.second = status(); out.secondRow = first(0)[0];
const search = box.querySelector('input[type=search]');
search.value = 'ROW 7'; search.dispatchEvent(new Event('input')); out.filtered = status();
search.value = 'nothing like it'; search.dispatchEvent(new Event('input')); out.none = status();
search.value = ''; search.dispatchEvent(new Event('input'));
box.querySelector('input[type=checkbox]').click();
out.hidden = first(0); out.heads = box.querySelectorAll('th:not([hidden])').length;
const files = [];
HTMLAnchorElement.prototype.click = function () { files.push(this.download); };
button('save CSV').click();
const figure = document.querySelector('figure');
[...figure.querySelectorAll('button')].find((each) => each.textContent === 'save SVG').click();
const fold = figure.querySelector('details'); fold.open = true;
out.files = files;
out.figures = document.querySelectorAll('figure').length; out.drawings = document.querySelectorAll('figure svg').length;
const isNamed = (each) => each.textContent.trim() || each.getAttribute('aria-label') || each.closest('label')
  || document.getElementById(each.getAttribute('aria-labelledby'))?.textContent.trim();
const needName = document.querySelectorAll('button, input, svg[role=img], section[aria-labelledby], [role=region]');
out.unnamed = [...needName].filter((each) => !isNamed(each)).length;
const pre = document.createElement('pre'); pre.id = 'probe';
pre.textContent = JSON.stringify({ ...out, wrong }); document.body.append(pre);
</script>"""


_AXE = """<script>
const inWords = (each) => `${each.impact}: ${each.id}: ${each.nodes[0].html.slice(0, 200)}`;
const told = (found) => found.violations.map(inWords);
(async () => {
  for (const fold of document.querySelectorAll('details')) fold.open = true;
  const page = told(await axe.run(document));
  const planted = document.createElement('p');
  planted.innerHTML = '<img src="data:,"><span style="color:#777;background:#666">grey</span>';
  document.querySelector('main').append(planted);
  const pre = document.createElement('pre'); pre.id = 'probe';
  pre.textContent = JSON.stringify({
    page, planted: told(await axe.run(planted)), isDark: matchMedia('(prefers-color-scheme: dark)').matches,
  });
  document.body.append(pre);
})();
</script>"""


def found_in(page, folder, *options):
    """What a script in a page wrote into it."""
    (folder / "page.html").write_text(page)
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options,
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "page.html").as_uri()],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    if found is None and "<html" not in done.stdout:
        pytest.skip(f"the browser does not start here: {done.stderr.strip().splitlines()[-1:]}")
    return found and json.loads(unescape(found[1])), done.stdout[-2000:]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """What a script in the page found."""
    rows = [(f"row {place}", f"{(place * 7919) % 1000 - 500:+.2f} ± 0.10") for place in range(450)]
    rows[3] = ("row 3", "–¹")
    columns = [Column("name", lambda row: row[0], kind="label"), Column("number", lambda row: row[1])]
    document = build(every_fate(), title="<b>any</b>", margin=1.0, medium="page", pictures=True, every_cell=True)
    document = type(document)(document.title, (*document.sections, Section("Numbers", (), table(columns, rows))))
    page = html.text(document).replace("<title>", _LISTEN + "<title>", 1).replace("</body>", _PROBE + "</body>")
    found, end = found_in(page, tmp_path_factory.mktemp("browser"))
    assert found, end
    return found


@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core-python is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_with_the_page_in_light_and_in_dark(tmp_path, scheme):
    document = build(every_fate(), title="any", margin=1.0, medium="page", pictures=True, every_cell=True)
    axe = (files("axe_core_python") / "axe.min.js").read_text().replace("</script", "<\\/script")
    page = html.text(document).replace("</body>", f"<script>{axe}</script>{_AXE}</body>")

    # Time of the page's own, as much as axe needs: however slow the machine is, the page is read when axe is done.
    options = ("--virtual-time-budget=600000", f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}")
    found, _ = found_in(page, tmp_path, *options)
    if found is None:
        pytest.skip("this browser keeps no time of its own for a page")

    assert found["page"] == []
    assert {line.split(": ")[1] for line in found["planted"]} >= {"image-alt", "color-contrast"}  # it does look
    if found["isDark"] is not (scheme == "dark"):
        pytest.skip(f"this browser cannot be told that its user likes it {scheme}")


def test_nothing_goes_wrong_and_everything_has_a_name(probed):
    assert probed["wrong"] == [] and probed["ready"] == "yes"
    assert probed["unnamed"] == 0
    assert probed["figures"] == probed["drawings"] >= 4


def test_a_click_sorts_by_number_both_ways_with_missing_values_last_and_a_third_undoes_it(probed):
    numbers = [[float(text.split()[0]) for text in probed[name]] for name in ("ascending", "descending")]
    assert numbers[0] == sorted(numbers[0]) and numbers[1] == sorted(numbers[1], reverse=True)
    every = sorted((place * 7919) % 1000 - 500 for place in range(450) if place != 3)
    assert numbers == [every[:3], every[:-4:-1]]
    assert probed["sorted"] == "ascending" and probed["asBefore"] == probed["start"] == ["row 0", "row 1", "row 2"]


def test_long_tables_turn_pages_and_are_filtered_as_a_whole(probed):
    assert probed["size"] == 200
    assert probed["second"] == "rows 201 to 400 of 450" and probed["secondRow"] == "row 200"
    texts = ["row 3 –¹" if n == 3 else f"row {n} {(n * 7919) % 1000 - 500:+.2f}" for n in range(450)]
    assert probed["filtered"] == f"{sum('7' in text for text in texts)} of 450 rows"  # every word, wherever it stands
    assert probed["none"] == "0 of 450 rows"


def test_columns_are_hidden_and_what_is_seen_is_saved(probed):
    assert probed["heads"] == 1 and probed["hidden"][0].endswith("± 0.10")
    assert probed["files"] == ["Numbers.csv", "metric.svg"]
