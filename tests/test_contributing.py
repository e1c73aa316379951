"CONTRIBUTING.md and what stands beside it say what is true."
import configparser, re
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
text = (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
path_code, model_code = re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)
settings = configparser.ConfigParser(delimiters=['='])
settings.read(root/'settings.ini')
cfg = settings['DEFAULT']


def run(code:str) -> dict:
    names = {'__name__': 'contributing'}
    exec(compile(code, 'CONTRIBUTING.md', 'exec'), names)
    return names


def test_a_model_in_ten_lines():
    lines = re.search(r'^@saveable\n.*?\n\n', model_code, re.M | re.S)[0].strip().splitlines()
    assert len(lines) == 10
    names = run(model_code)
    assert names['item_factors'].shape == (21, 8)


def test_the_path_of_a_rating_runs():
    best = run(path_code)['best']
    assert list(best.columns) == ['item', 'predicted'] and len(best) == 3
    assert not set(best['item']) & set(range(4)), 'user 5 rated items 0 to 3'


def test_the_readme_gives_the_numbers_that_it_shows(ml):
    readme = (root/'README.md').read_text(encoding='utf-8')
    code, printed = re.search(r'^```python\n(.*?)^```\n\n```text\n(.*?)^```', readme, re.M | re.S).groups()
    shown = re.findall(r'^\[\d, [\d.]+, ([\d.]+)', printed, re.M)
    learn = run(code)['learn']
    assert len(shown) == 5
    assert [row[1] for row in learn.recorder.values] == pytest.approx([float(x) for x in shown], abs=.002)


def test_the_path_of_a_rating_is_short():
    drawing = re.search(r'```mermaid\n(.*?)```', text, re.S)[1]
    modules = {p.stem for p in (root/'collab_course').glob('[!_]*.py')} & set(re.findall(r'\w+', drawing))
    assert modules == {'tables', 'data', 'loaders', 'dot_product', 'history', 'recommendation'}
    assert re.findall(r'copy (\d)', drawing) == ['1', '2', '3']


@pytest.mark.parametrize('path', sorted(set(re.findall(r'(?:nbs|tests|\.ci)/[\w./]*\w', text))))
def test_files_that_are_named_exist(path): assert (root/path).exists()


def test_versions_agree():
    citation = (root/'CITATION.cff').read_text(encoding='utf-8')
    assert re.search(r'^version: (.+)$', citation, re.M)[1] == cfg['version']
    assert f"repository-code: https://github.com/{cfg['user']}/{cfg['repo']}" in citation
    changes = (root/'CHANGELOG.md').read_text(encoding='utf-8')
    assert re.search(r'^## (\S+)', changes, re.M)[1] in (cfg['version'], 'Unreleased')
    workflow = (root/'.github'/'workflows'/'ci.yml').read_text(encoding='utf-8')
    assert f"'{cfg['min_python']}'" in workflow and 'bash .ci/run' in workflow
