"""Write each picture's `#| fig-alt: "…"` into the output's metadata, where nbconvert looks for it (template
`classic`), so that a page can be read aloud: `python .ci/alt.py [NOTEBOOK ...]` (all, if none is named)."""
import json
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def alt_text(source: str) -> str:
    "What a cell's line `#| fig-alt: …` says, without its quotation marks"
    for line in source.splitlines():
        directive, _, text = line.removeprefix('#|').partition(':')
        if line.startswith('#|') and directive.strip() == 'fig-alt':
            text = text.strip()
            return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    return ''


def stamp(nb: dict) -> dict:
    "`nb` with the alternative text in the metadata of every PNG; what else the metadata says stays"
    for cell in nb['cells']:
        text = alt_text(''.join(cell['source'])) if cell['cell_type'] == 'code' else ''
        if not text: continue
        for output in cell['outputs']:
            if 'image/png' in output.get('data', {}):
                output.setdefault('metadata', {}).setdefault('image/png', {})['alt'] = text
    return nb


def stamped(raw: str) -> str:
    "A notebook's file as nbdev_clean would write it, with the alternative texts"
    return json.dumps(stamp(json.loads(raw)), sort_keys=True, indent=1, ensure_ascii=False) + '\n'


if __name__ == '__main__':
    for path in map(Path, sys.argv[1:] or sorted((root/'nbs').rglob('*.ipynb'))):
        raw = path.read_text(encoding='utf-8')
        if (new := stamped(raw)) != raw: path.write_text(new, encoding='utf-8')
