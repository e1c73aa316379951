"Draw nbs/images/spreadsheet.png, the Keras lesson's workbook of made ratings: `python .ci/spreadsheet.py`."
import json
import tempfile
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import openpyxl

root = Path(__file__).resolve().parent.parent
last_row, widths = 45, [1.6] + [.8]*21


def workbook(folder: Path):
    "The lesson's workbook, made by the lesson's own cells"
    cells = json.loads((root/'nbs'/'07_keras_lesson.ipynb').read_text(encoding='utf-8'))['cells']
    sources = [''.join(o['source']) for o in cells if o['cell_type'] == 'code']
    lines = next(o for o in sources if 'crosstab = busiest_crosstab' in o)
    made = {}
    exec('from collab_course.data import *\nfrom collab_course.synthetic import *\n'
         'from collab_course.spreadsheet import *\n' + lines, made)
    models = made['spreadsheet_models'](*made['crosstab'].shape)
    made['to_excel'](folder/'by_hand.xlsx', made['crosstab'], models)
    return openpyxl.load_workbook(folder/'by_hand.xlsx', data_only=True)


def draw(sheet, path: Path):
    "The upper rows of a sheet, with the fills, and the titles of the movies upright"
    tall = {k for k in range(1, last_row + 1) if sheet.cell(k, 1).value in ('Ratings', 'Predictions')}
    heights = [4. if k in tall else 1. for k in range(1, last_row + 1)]
    fig = plt.figure(figsize=(sum(widths)*.6, sum(heights)*.19), dpi=100)
    ax = fig.add_axes([0, 0, 1, 1], xlim=(0, sum(widths)), ylim=(sum(heights), 0))
    ax.axis('off')
    for k, height in enumerate(heights, start=1):
        y = sum(heights[:k - 1])
        for j, width in enumerate(widths, start=1):
            x, cell = sum(widths[:j - 1]), sheet.cell(k, j)
            colour = '#' + cell.fill.fgColor.rgb[2:] if cell.fill.fill_type else 'none'
            edge = '#E0C060' if colour == '#FFF2CC' else 'none'
            ax.add_patch(plt.Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, lw=.5))
            upright, text = k in tall and j > 7, cell.value
            if text in (None, ''): continue
            if isinstance(text, float): text = f'{text:.4f}' if k == 2 else f'{text:.2f}'
            if upright: place = dict(x=x + width/2, y=y + height - .15, ha='center', va='bottom', rotation=90)
            elif j > 1: place = dict(x=x + width - .08, y=y + height - .5, ha='right', va='center')
            else: place = dict(x=x + .1, y=y + height - .5, ha='left', va='center')
            ax.text(s=text, fontsize=8, weight='bold' if cell.font.b else 'normal', **place)
    fig.savefig(path, pil_kwargs=dict(optimize=True))


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as tmp:
        draw(workbook(Path(tmp)).worksheets[1], root/'nbs'/'images'/'spreadsheet.png')
