"""Write the Keras lesson's workbook of made ratings, nbs/07_keras_lesson.xlsx, and draw a part of it as
nbs/images/spreadsheet.png: `python .ci/spreadsheet.py`."""
import json
import shutil
import tempfile
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import openpyxl
from openpyxl.utils import column_index_from_string, get_column_letter

root = Path(__file__).resolve().parent.parent
blue, orange, black = '#0072B2', '#D55E00', '#222222'
yellow, grey = '#FFF2CC', '#EEEEEE'
first_row, last_row, last_column = 24, 34, 'J'
widths = [1.5] + [.95]*5 + [1.25]*4
heights = {24: 2.6}


def workbook(folder: Path) -> Path:
    "The lesson's workbook, made by the lesson's own cells"
    cells = json.loads((root/'nbs'/'07_keras_lesson.ipynb').read_text(encoding='utf-8'))['cells']
    sources = [''.join(o['source']) for o in cells if o['cell_type'] == 'code']
    def cell_with(text): return next(o for o in sources if text in o)
    made = {}
    exec('from copy import deepcopy\nfrom fastai.collab import *\nfrom fastai.tabular.all import *\n'
         'from collab_course.data import *\n'
         'from collab_course.interface import *\nfrom collab_course.synthetic import *\n'
         'from collab_course.spreadsheet import *', made)
    for text in ('crosstab = busiest_crosstab', 'def rmse_on', 'models = spreadsheet_models', 'def solve'):
        exec(cell_with(text), made)
    return made['to_excel'](folder/'07_keras_lesson.xlsx', made['crosstab'], made['models'])


class Drawing:
    "A part of a sheet with its row numbers and column letters"
    def __init__(self, path):
        self.values = openpyxl.load_workbook(path, data_only=True).worksheets[0]
        self.formulas = openpyxl.load_workbook(path).worksheets[0]
        rows = range(first_row, last_row + 1)
        self.tops = {first_row: 1}
        for row in rows: self.tops[row + 1] = self.tops[row] + heights.get(row, 1)
        self.height, self.width = self.tops[last_row + 1] + 3.4, .7 + sum(widths)
        self.fig = plt.figure(figsize=(self.width*.82, self.height*.34), dpi=130)
        self.ax = self.fig.add_axes([0, 0, 1, 1], xlim=(0, self.width), ylim=(self.height, 0))
        self.ax.axis('off')

    def box(self, start, end=None):
        "(x, y, width, height) of a range such as B30:F30"
        (x0, y0), (x1, y1) = (self.corner(ref) for ref in (start, end or start))
        return x0, y0, x1 + self.width_of(end or start) - x0, y1 + self.height_of(end or start) - y0

    def split(self, ref): return ref.rstrip('0123456789'), int(ref.lstrip('ABCDEFGHIJ'))
    def width_of(self, ref): return widths[column_index_from_string(self.split(ref)[0]) - 1]
    def height_of(self, ref): return heights.get(self.split(ref)[1], 1)

    def corner(self, ref):
        letter, row = self.split(ref)
        return .7 + sum(widths[:column_index_from_string(letter) - 1]), self.tops[row]

    def write(self, x, y, text, **style):
        self.ax.text(x, y, text, **{'ha': 'center', 'va': 'center', 'fontsize': 9, **style})

    def rectangle(self, place, **style): self.ax.add_patch(plt.Rectangle(place[:2], *place[2:], **style))

    def margins(self):
        "Letters over the columns, numbers left of the rows"
        for k in range(1, column_index_from_string(last_column) + 1):
            x, _, width, _ = self.box(f'{get_column_letter(k)}{first_row}')
            self.rectangle((x, 0, width, 1), facecolor=grey, edgecolor='white')
            self.write(x + width/2, .5, get_column_letter(k), color='#555555')
        for row in range(first_row, last_row + 1):
            self.rectangle((0, self.tops[row], .7, heights.get(row, 1)), facecolor=grey, edgecolor='white')
            self.write(.35, self.tops[row] + heights.get(row, 1)/2, row, color='#555555')

    def cell(self, ref):
        x, y, width, height = self.box(ref)
        cell = self.values[ref]
        mine = cell.fill.fill_type and cell.fill.fgColor.rgb[2:] == yellow[1:]
        self.rectangle((x, y, width, height), facecolor=yellow if mine else 'white', edgecolor='#DDDDDD')
        if cell.value in (None, ''): return
        text = f'{cell.value:.2f}' if isinstance(cell.value, float) else str(cell.value)
        if height > 1: self.write(x + width/2, y + height/2, text.replace(' ', '\n'))
        else: self.write(x + width/2, y + height/2, text, weight='bold' if cell.font.b else 'normal')

    def arrow(self, start, end, colour):
        self.ax.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color=colour, lw=2))

    def coloured(self, x, y, pieces):
        "Pieces of text in a row, each in its colour"
        renderer = self.fig.canvas.get_renderer()
        for text, colour in pieces:
            drawn = self.ax.text(x, y, text, color=colour, fontsize=10, family='monospace', va='center',
                                 weight='bold')
            x = self.ax.transData.inverted().transform(drawn.get_window_extent(renderer).corners())[2][0]

    def explain(self, ref, user, item):
        "What a prediction reads: arrows from the user's and the movie's numbers, and its formula"
        x, y, width, height = self.box(ref)
        for (start, end), colour in ((user, blue), (item, orange)):
            self.rectangle(self.box(start, end), fill=False, edgecolor=colour, lw=2.5)
        self.rectangle((x, y, width, height), facecolor='white', edgecolor=black, lw=2.5, zorder=3)
        self.write(x + width/2, y + height/2, f'{self.values[ref].value:.2f}', weight='bold', zorder=4)
        of_user, of_item = self.box(*user), self.box(*item)
        self.arrow((of_user[0] + of_user[2], y + .86), (x, y + .86), blue)
        right = x + .86*width
        self.arrow((right, of_item[1] + of_item[3]), (right, y), orange)
        formula = self.formulas[ref].value.split(',', 2)[2].removesuffix(')')
        pieces = [(f'{ref} = ', black)]
        for k, product in enumerate(formula.split('+')):
            of_u, of_i = product.replace('$', '').split('*')
            pieces += [(' + ' if k else '', black), (of_u, blue), ('*', black), (of_i, orange)]
        below = self.tops[last_row + 1]
        self.coloured(.4, below + 1, pieces)
        numbers = ' + '.join(f'{self.values[a].value:.2f}*{self.values[b].value:.2f}'
                             for a, b in (o.replace('$', '').split('*') for o in formula.split('+')))
        self.coloured(.4, below + 2.2, [(f'    = {numbers} = {self.values[ref].value:.2f}', black)])


def draw(path: Path, picture: Path):
    "Five people and four movies, and the formula of one prediction"
    drawing = Drawing(path)
    drawing.margins()
    for row in range(first_row, last_row + 1):
        for k in range(1, column_index_from_string(last_column) + 1):
            drawing.cell(f'{get_column_letter(k)}{row}')
    drawing.explain('H32', ('B32', 'F32'), ('H25', 'H29'))
    drawing.fig.savefig(picture, pil_kwargs=dict(optimize=True))


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as tmp:
        made = workbook(Path(tmp))
        shutil.copyfile(made, root/'nbs'/made.name)
    draw(root/'nbs'/'07_keras_lesson.xlsx', root/'nbs'/'images'/'spreadsheet.png')
