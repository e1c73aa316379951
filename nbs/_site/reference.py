"The reference: one page a module, made from docstrings and docments, patched methods under their class"
import inspect
import re
from pathlib import Path

from fastcore.docments import docments

from places import root

public = {}        # {name: its full name}, of everything that the package exports


def skip(app, what, name, obj, skipped, options):
    "Nothing without a docstring of its own"
    return None


def docstring(app, what, name, obj, options, lines):
    "Sphinx's hook: Markdown becomes reStructuredText, and docments become a list of parameters"
    text = '\n'.join(lines)
    made = as_rst(text).splitlines()
    if what in ('function', 'method', 'class'): made += ['', *parameters(obj)]
    lines[:] = made


def parameters(obj) -> list:
    "Lines `:param name: comment` and `:returns: comment` of what has a comment"
    res = []
    for name, said in commented(obj).items():
        field = 'returns' if name == 'return' else f'param {name}'
        res.append(f':{field}: {as_rst(said)}')
    return res


def commented(obj) -> dict:
    "{parameter: its comment}, of those that have one"
    if isinstance(obj, type) and '__init__' not in vars(obj): return {}
    try: found = docments(obj, full=True)
    except (TypeError, OSError, ValueError): return {}
    return {name: ' '.join(o.docment.split()) for name, o in found.items() if o.docment}


def as_rst(text: str) -> str:
    "A docstring's Markdown: `code` becomes code or a link, and what reStructuredText would read otherwise is escaped"
    parts = re.split(r'(`[^`]+`)', text)
    return ''.join(code(o[1:-1]) if o.startswith('`') and len(o) > 2 else escaped(o) for o in parts)


def code(name: str) -> str:
    full = public.get(name.removesuffix('()'))
    return f':py:obj:`{name} <{full}>`' if full else f'``{name}``'


def escaped(text: str) -> str: return re.sub(r'([\\*_|])', r'\\\1', text)


def modules() -> list:
    return sorted(p.stem for p in (root/'collab_course').glob('[!_]*.py'))
