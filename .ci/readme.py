"Make README.md, and its pictures under nbs/images, from nbs/index.ipynb: `python .ci/readme.py`."
import base64
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent


def readme(notebook=root/'nbs'/'index.ipynb') -> tuple:
    "The README's text and its pictures {path below the root: bytes}, without hidden cells and directives"
    nb = nbformat.read(notebook, as_version=4)
    cells, pictures = [], {}
    for cell in nb.cells:
        lines = cell.source.splitlines()
        parts = [o[2:].partition(':') for o in lines if o.startswith('#|')]
        directives = {k.strip(): v.strip() for k, _, v in parts}
        if 'hide' in directives: continue
        cell.source = '\n'.join(o for o in lines if not o.startswith('#|')).strip()
        if cell.cell_type == 'code':
            shown = [markdown for out in _merged(cell.outputs) if (markdown := _output(out, pictures))]
            code = [] if directives.get('echo') == 'false' else [f'```python\n{cell.source}\n```']
            cell = nbformat.v4.new_markdown_cell('\n\n'.join(code + shown))
        cells.append(cell)
    nb.cells = cells
    text = _from_the_root(MarkdownExporter().from_notebook_node(nb)[0])
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n', pictures


def _from_the_root(text) -> str:
    "Links that are right beside the index, made right in the folder above it"
    return re.sub(r'\]\((?!https?:|#|nbs/)', '](nbs/', text)


def _merged(outputs) -> list:
    "Lines that were printed one after the other as one output"
    res = []
    for out in outputs:
        if res and out.output_type == res[-1].output_type == 'stream':
            res[-1] = nbformat.from_dict(res[-1] | {'text': res[-1].text + out.text})
        else: res.append(out)
    return res


def _output(out, pictures) -> str:
    "One output as Markdown: a picture (kept in `pictures`), Markdown, or text"
    data = out.get('data', {})
    if 'image/png' in data:
        path = f'nbs/images/index_{len(pictures) + 1}.png'
        pictures[path] = base64.b64decode(data['image/png'])
        alt = out.metadata.get('image/png', {}).get('alt', '')  # `python .ci/alt.py` put it there
        return f'![{alt}]({path})'
    text = data.get('text/markdown') or out.get('text') or data.get('text/plain', '')
    if 'text/markdown' in data: return text
    return '' if not text or text.startswith('<') else '```text\n' + text.rstrip() + '\n```'


if __name__ == '__main__':
    text, pictures = readme()
    (root/'README.md').write_text(text, encoding='utf-8')
    for old in (root/'nbs'/'images').glob('index_*.png'): old.unlink()
    for path, content in pictures.items():
        (root/path).parent.mkdir(exist_ok=True)
        (root/path).write_bytes(content)
