"The package, described by settings.ini: nothing is said here that is not read from there."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

# the README's links lead into the repository: a package index has no files beside it
blob, raw = (f"{cfg['git_url']}/{kind}/{cfg['branch']}/" for kind in ('blob', 'raw'))
readme = (here/'README.md').read_text(encoding='utf-8')
readme = re.sub(r'(!\[[^]]*\]\()(?!https?:)', rf'\1{raw}', readme)
readme = re.sub(r'(?<!!)(\[[^]]*\]\()(?!https?:|#)', rf'\1{blob}', readme)

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=readme, long_description_content_type='text/markdown',
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']), python_requires='>=' + cfg['min_python'],
    package_data={cfg['lib_path']: ['static/*']},
    install_requires=cfg['requirements'].split(),
    # every setting called NAME_requirements is the extra NAME
    extras_require={k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Education', 'Programming Language :: Python :: 3'],
    zip_safe=False)
