"Formulas as MathML, which browsers draw without a script"
from docutils import nodes
from latex2mathml.converter import convert


def visit_inline(self, node):
    self.body.append(convert(node.astext(), display='inline'))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode
