"The house is in order: notebooks, modules and README say the same."
import configparser, importlib.util, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
lessons = sorted((root/'nbs').glob('*.ipynb'))
shelf = sorted((root/'nbs'/'package').glob('*.ipynb'))
notebooks = lessons + shelf
solutions = sorted((root/'nbs'/'solutions').glob('*.ipynb'))
settings = configparser.ConfigParser(delimiters=['=']); settings.read(root/'settings.ini')
cfg = settings['DEFAULT']


def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])


def script(name):
    "A script of `.ci` as a module"
    spec = importlib.util.spec_from_file_location(name, root/'.ci'/f'{name}.py')
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_readme_is_the_index():
    pytest.importorskip('nbconvert')
    text, pictures = script('readme').readme()
    assert (root/'README.md').read_text(encoding='utf-8') == text, 'run: python .ci/readme.py'
    assert pictures and {
        str(p.relative_to(root)) for p in (root / 'nbs' / 'images').glob('index_*.png')
    } == set(pictures)
    for path, content in pictures.items(): assert (root/path).read_bytes() == content


def test_readme_opens_as_promised():
    lines = (root/'README.md').read_text(encoding='utf-8').splitlines()
    first, second = [o for o in lines if o.startswith('pip install')][:2]
    assert '-c constraints.txt' in first and 'collab-course progression' in first
    assert '[dev]' in second and 'nbdev_test' in second and 'pytest' in second
    assert 'dl_type=TabDataLoader' in '\n'.join(lines) and '#|' not in '\n'.join(lines)
    text = [o for o in lines if o.strip()]
    assert text[1].startswith('**') and [o for o in text if o.startswith('![')][0] in text[:12]
    assert '**Start here:**' in '\n'.join(text[:20])
    assert [o for o in lines if o.startswith('## ')][0] == '## Two commands' and lines.index(first) < 45
    before = '\n'.join(lines[:lines.index(first)])
    assert 'git clone' in before and f"Python {cfg['min_python']}" in before
    for link in re.findall(r'\]\((nbs[^)]*)\)', '\n'.join(lines)): assert (root/link).exists(), link
    for path in lessons:
        if path.stem != 'index': assert f'nbs/{path.name})' in '\n'.join(lines), f'no link to {path.name}'


def test_links_between_notebooks_resolve():
    for path in notebooks:
        text = '\n'.join(source(c) for c in cells(path) if c['cell_type'] == 'markdown')
        for link in re.findall(r'\]\((?!https?:|#)([^)\s]+)\)', text):
            assert (path.parent/link.split('#')[0]).exists(), (path.name, link)


def test_modules_are_what_the_notebooks_export(tmp_path):
    pytest.importorskip('nbdev')
    shutil.copytree(root/'nbs', tmp_path/'nbs'); shutil.copy(root/'settings.ini', tmp_path)
    (tmp_path / 'collab_course').mkdir()
    shutil.copy(root / 'collab_course' / '__init__.py', tmp_path / 'collab_course')
    subprocess.run([str(Path(sys.executable).parent/'nbdev_export')], cwd=tmp_path, check=True)
    made, here = (
        {p.name: p.read_text() for p in (folder / 'collab_course').glob('*.py')}
        for folder in (tmp_path, root)
    )
    assert made.keys() == here.keys() and [n for n in made if made[n] != here[n]] == [], 'run: nbdev_export'


def test_one_notebook_one_module():
    exported = {
        m[1] for p in notebooks for c in cells(p) if (m := re.match(r'#\| default_exp (\w+)', source(c)))
    }
    assert {p.stem for p in (root/'collab_course').glob('*.py')} == exported | {'__init__', '_modidx'}


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    code = [c for c in nb['cells'] if c['cell_type'] == 'code' and source(c).strip()]
    assert not [o for c in code for o in c['outputs'] if o['output_type'] == 'error']
    assert not [c for c in code if c['execution_count'] is not None], 'run: nbdev_clean'
    assert any(c['outputs'] for c in code), 'committed without outputs'
    for c in code:
        pictures = [o for o in c['outputs'] if 'image/png' in o.get('data', {})]
        assert not pictures or 'fig-alt:' in source(c), f'no alternative text: {source(c)[:60]}'
        shown = json.dumps(c['outputs'])
        for place in (str(root), str(Path.home()) + '/', 'site-packages', '/tmp/'):
            assert place not in shown, 'a path of a machine in the outputs'
    if path.stem == 'index': return
    file = f"{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/{path.relative_to(root).as_posix()}"
    badge = f'https://colab.research.google.com/github/{file}'
    text = '\n'.join(map(source, nb['cells']))
    package = f"git+https://github.com/{cfg['user']}/{cfg['repo']}@{cfg['branch']}"
    assert badge in text and package in source(code[0])
    titles = re.findall(r'^## (.+)$', text, re.M)
    assert source(nb['cells'][0]).startswith('# ')
    if path in lessons: assert 'Questions' in titles and 'Exercises' in titles


@pytest.mark.parametrize('path', notebooks + solutions, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_pictures_say_what_they_show_in_their_metadata(path):
    raw = path.read_text(encoding='utf-8')
    assert script('alt').stamped(raw) == raw, 'run: python .ci/alt.py'
    for cell in json.loads(raw)['cells']:
        for o in cell.get('outputs', []):
            if 'image/png' in o.get('data', {}): assert o['metadata']['image/png']['alt'] in source(cell)


def test_alternative_texts_are_stamped():
    def made(*lines, **metadata):
        output = dict(output_type='display_data', data={'image/png': ''}, metadata=metadata)
        words = dict(output_type='stream', name='stdout', text=['words'])
        cell = dict(cell_type='code', source=[o + '\n' for o in lines], outputs=[output, words])
        return dict(cells=[dict(cell_type='markdown', source=['#| fig-alt: "no code"']), cell])

    alt = script('alt')
    for written in (
        '#| fig-alt: "A line: it falls."',
        '#| fig-alt: A line: it falls.',
        '#|fig-alt: "A line: it falls."',
    ):
        nb = alt.stamp(made('#| slow', written, 'plot()'))
        assert nb['cells'][1]['outputs'][0]['metadata'] == {'image/png': {'alt': 'A line: it falls.'}}
        assert 'metadata' not in nb['cells'][1]['outputs'][1]
        # once is enough
        assert alt.stamp(json.loads(json.dumps(nb))) == nb
    old = alt.stamp(made('#| fig-alt: "new"', **{'image/png': {'alt': 'old', 'width': 9}}))
    assert old['cells'][1]['outputs'][0]['metadata'] == {'image/png': {'alt': 'new', 'width': 9}}
    assert alt.stamp(made('plot()')) == made('plot()')


def test_pages_made_of_notebooks_say_what_a_picture_shows():
    convert = pytest.importorskip('nbconvert')
    html, _ = convert.HTMLExporter(template_name='classic').from_filename(
        root / 'nbs' / 'package' / '07_testing.ipynb'
    )
    assert 'alt="A checkerboard of 20 by 20 cells' in html and 'alt="Two factors of twenty items' in html


# what a module may import stands before it; the lessons' modules stand where the package first needs them
ORDER = """
errors files tables columns data movielens synthetic loaders dot_product interface history testing training
blocks distributed keras_training progression bayes_fit ensembles interpretation label_sets neighbours pca
maps neural_net keras_style labels svdpp bayes cross_entropy evaluation ordered_bayes rankers titles
uncertainty ranking recommendation sharing saving spreadsheet pages playground robust_pca benchmarks
cuda_figures cli exercises scale
""".split()


def test_modules_import_only_from_modules_before():
    assert sorted(ORDER) == sorted(p.stem for p in (root/'collab_course').glob('[!_]*.py'))
    for k, module in enumerate(ORDER):
        text = (root/'collab_course'/f'{module}.py').read_text()
        used = set(re.findall(r'^from \.(\w+) import', text, re.M)) | set(
            re.findall(r'^ +from collab_course\.(\w+) import', text, re.M)
        )
        late = {'saving'} if module == 'recommendation' else set()       # asked for when something is saved
        assert used <= {*ORDER[:k], *late}, (module, used - set(ORDER[:k]))


def test_numbers_of_the_package_shelf_give_the_order_of_imports():
    exported = [
        re.search(r'^#\| default_exp (\w+)', '\n'.join(map(source, cells(p))), re.M)[1] for p in shelf
    ]
    assert exported == sorted(exported, key=[*ORDER, '__main__'].index)


def test_the_package_is_described_once():
    text = (root/'setup.py').read_text()
    for word in (cfg['version'], 'fastai>=', cfg['author']): assert word not in text
    import collab_course
    assert collab_course.__version__ == cfg['version']


def test_threads_wait_quietly_unless_somebody_chose():
    import os, subprocess, sys
    code = "import collab_course, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for chosen, want in ((None, 'passive'), ('active', 'active')):
        env = {k: v for k, v in os.environ.items() if k != 'OMP_WAIT_POLICY'} | (
            {'OMP_WAIT_POLICY': chosen} if chosen else {}
        )
        run = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
        assert run.stdout.split() == [want, 'False'], run.stderr


def test_tested_set():
    pins = dict(o.split('==') for o in (root/'constraints.txt').read_text().split() if '==' in o)
    assert pins['torch'] == '2.13.0' and pins['fastai'] == '2.8.7' and pins['nbdev'].startswith('2.4')
    assert 'Apache License' in (root/'LICENSE').read_text()


def test_public_names_have_docstrings():
    import importlib
    for p in (root/'collab_course').glob('[!_]*.py'):
        mod = importlib.import_module(f'collab_course.{p.stem}')
        for name in mod.__all__:
            o = getattr(mod, name)
            if callable(o): assert (o.__doc__ or '').strip(), f'{p.stem}.{name} has no docstring'


def test_no_ratings_in_the_project():
    tracked = subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True)
    if tracked.returncode: pytest.skip('not a git checkout')
    assert not [
        f
        for f in tracked.stdout.split()
        if re.search(r'u\.(data|item|user)$|ratings\.csv$|movies\.csv$|\.whl$|\.zip$', f)
    ]
