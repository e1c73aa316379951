"Collect what Sphinx reads: the notebooks as they are, and pages that list them: `python stage.py FOLDER`"
import shutil
import sys
from pathlib import Path

from notebooks import lesson_titles, promise, toctree
from places import root
from reference import modules


def stage(folder: Path):
    for part in ('.', 'package', 'solutions', 'images'): copy(root/'nbs'/part, folder/part)
    write(folder/'package'/'index.md', package_page())
    write(folder/'solutions'/'index.md', solutions_page())
    write(folder/'reference'/'index.md', reference_page())
    for name in modules(): write(folder/'reference'/f'{name}.rst', module_page(name))


def copy(source: Path, target: Path):
    "The files of a folder, without its folders"
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file(): shutil.copy(path, target)


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def package_page() -> str:
    shelf = sorted((root/'nbs'/'package').glob('*.ipynb'))
    rows = [f'- [{p.stem[3:]}]({p.name}): {promise(p)}' for p in shelf]
    return '\n'.join(['# Package notebooks', '', *rows, '', toctree([p.stem for p in shelf], maxdepth=1)])


def solutions_page() -> str:
    titles = lesson_titles(root/'nbs')
    solved = [p.stem for p in sorted((root/'nbs'/'solutions').glob('*.ipynb'))]
    rows = [f'- [{titles[name]}]({name}.ipynb)' for name in solved]
    return '\n'.join(['# Solutions', '', *rows, '', toctree(solved, maxdepth=1)])


def reference_page() -> str:
    rows = [f'- [collab_course.{name}]({name}.rst)' for name in modules()]
    return '\n'.join(['# Reference', '', *rows, '', toctree(modules(), maxdepth=1)])


def module_page(name: str) -> str:
    heading = f'collab_course.{name}'.replace('_', r'\_')
    directive = f'.. automodule:: collab_course.{name}\n   :members:\n   :undoc-members:\n'
    return f'{heading}\n{"="*len(heading)}\n\n{directive}'


if __name__ == '__main__': stage(Path(sys.argv[1]))
