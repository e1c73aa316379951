"""nbdev's notebooks as MyST-NB reads them. Only the text that Sphinx reads is changed, never a file."""
import json
import re
from pathlib import Path

from places import on_github, root

flags = 'slow', 'timed', 'latest', 'cuda'          # shown above the cell, see static/course.css
badge = re.compile(r'\[!\[(Open [^]]+)\]\(https?:[^)]*\)\]\((https?:[^)]*)\)\n?')
badges = re.compile(f'(?:{badge.pattern})+')
link = re.compile(r'(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)')


def read(app, docname, source):
    "Sphinx's hook: the text of a page before it is parsed"
    path = Path(app.env.doc2path(docname))
    if path.suffix != '.ipynb': return
    nb = json.loads(source[0])
    folder = (root/'nbs'/docname).parent
    nb['cells'] = [made for cell in nb['cells'] if (made := page_cell(cell, folder))]
    if docname == 'index': nb['cells'].append(markdown(contents(path.parent)))
    source[0] = json.dumps(nb)


def page_cell(cell: dict, folder: Path):
    "The cell as the page needs it; nothing where a page does not show it"
    text = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return cell | dict(source=page_text(text, folder))
    if cell['cell_type'] != 'code': return cell
    said = directives(text)
    code = without_directives(text)
    if 'hide' in said or not code: return None
    outputs = [page_output(output, folder) for output in cell['outputs']]
    return cell | dict(source=code, metadata=metadata(said), outputs=outputs)


def markdown(text: str) -> dict: return dict(cell_type='markdown', id='contents', metadata={}, source=text)


def directives(code: str) -> dict:
    "`#| name: value` lines as {name: value}; `#| export` and such have an empty value"
    lines = [line.removeprefix('#|').partition(':') for line in code.splitlines() if line.startswith('#|')]
    return {name.strip(): value.strip().strip('"') for name, _, value in lines}


def without_directives(code: str) -> str:
    return '\n'.join(line for line in code.splitlines() if not line.startswith('#|')).strip('\n')


def metadata(said: dict) -> dict:
    "Tags by which MyST-NB hides and folds, and classes for the style sheet"
    tags = [flag for flag in flags if flag in said]
    if said.get('echo') == 'false': tags.append('remove-input')
    elif said.get('code-fold') == 'true': tags.append('hide-input')
    if 'fig-alt' not in said: return dict(tags=tags)
    return dict(tags=tags, mystnb=dict(image=dict(alt=said['fig-alt'])))


def page_output(output: dict, folder: Path) -> dict:
    "An output, the links of its Markdown led to where they lead from the page"
    data = output.get('data', {})
    if 'text/markdown' not in data: return output
    text = ''.join(data['text/markdown']).replace('](nbs/', '](')       # the README's links begin at the root
    return output | dict(data={'text/markdown': page_text(text, folder)})


def page_text(text: str, folder: Path) -> str:
    "Markdown without pictures from elsewhere, whose links lead somewhere on the site or on GitHub"
    text = badges.sub(lambda found: buttons(found[0]), text)
    text = re.sub(r'`#\| ?(\w+)`', r'`\1`', text)
    # Sphinx passes HTML on as it is
    text = re.sub(r'(<a href="(?!https?:)[^"]*)\.ipynb', r'\1.html', text)
    return link.sub(lambda found: reachable(found[1], folder), text)


def buttons(text: str) -> str:
    "Badges as links that look like buttons"
    return ' '.join(f'[{name}]({url}){{.launch}}' for name, url in badge.findall(text)) + '\n'


def reachable(target: str, folder: Path) -> str:
    "A relative link as it is if it leads to a page or to a file beside it, else into the repository"
    path = (folder/target).resolve()
    if path == root/'nbs'/'package': return '/package/index.md'
    on_site = path.suffix in {'.ipynb', '.md', '.png', '.xlsx'} and path.is_relative_to(root/'nbs')
    if on_site or not path.exists(): return target       # what exists nowhere is Sphinx's to complain of
    return on_github(path)


def title(path: Path) -> str:
    "The first heading of a notebook"
    first = json.loads(path.read_text(encoding='utf-8'))['cells'][0]
    return ''.join(first['source']).splitlines()[0].removeprefix('# ')


def promise(path: Path) -> str:
    "What a notebook's header promises in its `> …`"
    header = ''.join(json.loads(path.read_text(encoding='utf-8'))['cells'][0]['source'])
    return ' '.join(re.findall(r'^> ?(.*)$', header, re.M))


def lesson_titles(folder: Path) -> dict:
    "{name: number and title} of the notebooks of a folder that begin with a number"
    return {p.stem: f'{int(p.stem[:2])} {title(p)}' for p in sorted(folder.glob('[0-9]*.ipynb'))}


def contents(source: Path) -> str:
    "Tables of contents for the side bar: the lessons, the package"
    lessons = [f'{name} <{stem}>' for stem, name in lesson_titles(source).items()]
    parts = dict(Lessons=lessons, Package=['package/index', 'reference/index'], Solutions=['solutions/index'])
    return '\n\n'.join(toctree(entries, caption=name) for name, entries in parts.items())


def toctree(entries: list, **options) -> str:
    said = '\n'.join(f':{name}: {value}' for name, value in dict(hidden='', **options).items())
    return '```{toctree}\n' + said + '\n\n' + '\n'.join(entries) + '\n```'
