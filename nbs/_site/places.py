"Where things are, as settings.ini says"
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent.parent
parser = ConfigParser(delimiters=['='])
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
repository, branch = cfg['git_url'], cfg['branch']


def on_github(path: Path) -> str:
    "The address of a file or folder of the repository"
    kind = 'tree' if path.is_dir() else 'blob'
    return f'{repository}/{kind}/{branch}/{path.relative_to(root).as_posix()}'
