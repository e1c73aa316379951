"""The site, built as CI builds it. `SITE` names a folder where it has been built already."""

import ast
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

for needed in ('sphinx', 'myst_nb', 'sphinx_book_theme', 'latex2mathml'): pytest.importorskip(needed)

root = Path(__file__).resolve().parent.parent
lessons = sorted((root/'nbs').glob('[0-9]*.ipynb'))
folders = [root/'nbs', root/'nbs'/'package', root/'nbs'/'solutions']
notebooks = [path for folder in folders for path in sorted(folder.glob('*.ipynb'))]
modules = sorted(path.stem for path in (root/'collab_course').glob('[!_]*.py'))
chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


loaded_relations = {'stylesheet', 'preload', 'modulepreload', 'icon', 'shortcut'}


class Page(HTMLParser):
    "What a page loads, what it links to, its ids, its pictures, and its text; those of frames in it, too"
    def __init__(self, html):
        super().__init__()
        self.loads, self.links, self.ids, self.pictures, self.words = [], [], set(), [], []
        self.tags = []
        self.feed(html)
        self.text = ''.join(self.words)

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        if tag == 'a' and said.get('href'): self.links.append(said['href'])
        if tag in ('script', 'style'): self.tags.append(tag)
        if 'id' in said: self.ids.add(said['id'])
        if tag == 'img': self.pictures.append(said)
        if tag == 'link' and set(said['rel'].split()) & loaded_relations:
            self.loads.append(said['href'])
        if tag in ('script', 'img', 'iframe', 'source', 'video', 'audio', 'embed', 'object'):
            self.loads += [said[name] for name in ('src', 'data', 'srcset') if said.get(name)]
        if 'style' in said: self.loads += addresses(said['style'] or '')
        if 'srcdoc' in said: self.loads += Page(said['srcdoc']).loads

    def handle_endtag(self, tag):
        if self.tags and tag == self.tags[-1]: self.tags.pop()

    def handle_data(self, data):
        if not self.tags: self.words.append(data)
        elif self.tags[-1] == 'style': self.loads += addresses(data)


def addresses(css: str) -> list:
    "What a style sheet loads"
    return re.findall(r'url\(\s*["\']?([^"\')]+)', css) + re.findall(r'@import\s+["\']([^"\']+)', css)


def from_elsewhere(address: str) -> bool: return bool(re.match(r'(https?:)?//', address.strip()))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    if 'SITE' in os.environ: return Path(os.environ['SITE']).resolve()
    out = tmp_path_factory.mktemp('site')/'out'
    run = subprocess.run(['bash', str(root/'.ci'/'site'), str(out)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return out


@pytest.fixture(scope='module')
def pages(site):
    found = sorted(site.rglob('*.html'))
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding='utf-8'))
        for path in found
        if '_static' not in path.parts
    }


def test_every_notebook_and_module_has_a_page(pages):
    for path in notebooks: assert path.relative_to(root/'nbs').with_suffix('.html').as_posix() in pages
    for module in modules: assert f'reference/{module}.html' in pages
    sidebar = set(pages['index.html'].links)
    assert {f'{path.stem}.html' for path in lessons} <= sidebar
    assert {'package/index.html', 'reference/index.html', 'solutions/index.html'} <= sidebar


def test_lessons_lead_to_the_next_one_and_to_their_solution(site, pages):
    for lesson, following in zip(lessons, lessons[1:]):
        html = (site/f'{lesson.stem}.html').read_text(encoding='utf-8')
        assert re.search(rf'class="right-next"\s+href="{following.stem}.html"', html), lesson.stem
    for path in lessons: assert f'solutions/{path.stem}.html' in pages[f'{path.stem}.html'].links


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for name, page in pages.items(): assert [o for o in page.loads if from_elsewhere(o)] == [], name
    for path in site.rglob('*.css'):
        assert not [o for o in addresses(path.read_text(encoding='utf-8')) if from_elsewhere(o)], path.name


def test_every_file_that_a_page_loads_is_there(site, pages):
    for name, page in pages.items():
        for address in page.loads:
            if address.startswith('data:'): continue
            assert (site/name).parent.joinpath(unquote(urlsplit(address).path)).exists(), (name, address)


def test_links_within_the_site_lead_somewhere(site, pages):
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc: continue
            target = (site/name).parent.joinpath(unquote(parts.path)).resolve() if parts.path else site/name
            assert target.exists(), (name, link)
            ids = pages[target.relative_to(site).as_posix()].ids if target.suffix == '.html' else set()
            assert not ids or not parts.fragment or unquote(parts.fragment) in ids, (name, link)


def test_comments_on_parameters_are_in_the_reference(pages):
    from fastcore.docments import docments

    from collab_course.data import read_ratings
    shown = ' '.join(pages['reference/data.html'].text.split())
    for name, said in docments(read_ratings, full=True).items():
        if not said.docment: continue
        words = said.docment.replace('`', '').replace('"', '').replace("'", '').split()[:4]
        assert ' '.join(words) in re.sub('[“”‘’"\']', '', shown), (name, words)


def patched_methods(module: str) -> list:
    "(class, method) of what is patched in a module and says what it does; those of hidden classes apart"
    tree = ast.parse((root/'collab_course'/f'{module}.py').read_text(encoding='utf-8'))
    functions = [o for o in tree.body if isinstance(o, ast.FunctionDef)]
    found = [o for o in functions if 'patch' in map(ast.unparse, o.decorator_list)]
    said = [(o.args.args[0].annotation.id, o.name) for o in found if ast.get_docstring(o)]
    return [(cls, name) for cls, name in said if not cls.startswith('_') and not name.startswith('_')]


def test_patched_methods_stand_under_their_class(pages):
    ids = {id: name for name, page in pages.items() for id in page.ids}
    methods = [pair for module in modules for pair in patched_methods(module)]
    for cls, method in methods:
        [full] = [id for id in ids if re.fullmatch(rf'collab_course\.\w+\.{cls}\.{method}', id)]
        assert ids[full] == f'reference/{full.split(".")[1]}.html'
    assert len(methods) > 20 and ('FactorMap', 'to_html') in methods
    assert ids['collab_course.maps.FactorMap.to_html'] == 'reference/maps.html'


def test_directives_and_hidden_cells_are_not_shown(pages):
    for name, page in pages.items():
        assert '#|' not in page.text, name
        assert "find_spec('collab_course')" not in page.text, name


def test_pictures_say_what_they_show(pages):
    for name, page in pages.items(): assert not [o for o in page.pictures if not o.get('alt')], name


def test_the_notebook_can_be_downloaded_as_it_is(site):
    for path in notebooks:
        assert (site/'_sources'/path.relative_to(root/'nbs')).read_bytes() == path.read_bytes()


def test_formulas_are_mathml(site):
    html = (site/'02_dot_product.html').read_text(encoding='utf-8')
    assert '<math' in html and not re.search('<script[^>]*mathjax', html, re.I)


def test_a_lesson_is_found_by_its_words(site):
    text = (site/'searchindex.js').read_text(encoding='utf-8')
    index = json.loads(re.fullmatch(r'Search\.setIndex\((.*)\);?\s*', text, re.S)[1])
    found = set()
    for kind in ('terms', 'titleterms'):
        pages = index[kind].get('popular', [])
        found |= {index['docnames'][k] for k in (pages if isinstance(pages, list) else [pages])}
    assert '12_ranking' in found


@pytest.mark.skipif(chromium is None, reason='Chromium is not installed')
def test_search_works_from_files(site, tmp_path):
    run = subprocess.run(
        [
            chromium,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            f'--user-data-dir={tmp_path}',
            '--virtual-time-budget=8000',
            '--dump-dom',
            f'{(site/"search.html").as_uri()}?q=bootstrapping',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search(r'href="17_further_research\.html[^"]*"', run.stdout.split('id="search-results"')[1])
