"Chromium without a window, asked over its DevTools pipe: keys, fingers, screenshots; no library is needed."
import base64, json, os, select, shutil, subprocess, time
from pathlib import Path

names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
chromium = next((path for path in map(shutil.which, names) if path), None)
flags = """--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run
--remote-debugging-pipe --hide-scrollbars --disable-extensions""".split()


class Page:
    "A page in a browser, for a `with`. `asked` are the addresses that it asked for, `errors` its complaints."
    def __init__(self, folder, width=1100, height=900):
        self.n, self.buffer, self.asked, self.errors = 0, b'', {}, []
        self.folder, self.size = Path(folder), (width, height)

    def __enter__(self):
        read, their_write = os.pipe()
        their_read, self.write = os.pipe()
        self.read = read
        line = f'exec "$@" 3<&{their_read} 4>&{their_write}'
        command = ['bash', '-c', line, 'bash', chromium, *flags, f'--user-data-dir={self.folder}/profile']
        self.process = subprocess.Popen(
            command, pass_fds=(their_read, their_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_read)
        os.close(their_write)
        target = self._call('Target.createTarget', url='about:blank')['targetId']
        self.session = self._call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network', 'Accessibility'): self.call(f'{domain}.enable')
        self.resize(*self.size)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)

    def _call(self, method, session=None, **params):
        self.n += 1
        message = dict(id=self.n, method=method, params=params)
        if session: message['sessionId'] = session
        os.write(self.write, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + 60
        while True:
            got = self._next(end)
            if got.get('id') == self.n:
                assert 'error' not in got, (method, got['error'])
                return got['result']

    def _next(self, end):
        while b'\0' not in self.buffer:
            left = max(0, end - time.monotonic())
            assert select.select([self.read], [], [], left)[0], 'the browser is silent'
            data = os.read(self.read, 2**20)
            assert data, 'the browser is gone'
            self.buffer += data
        text, self.buffer = self.buffer.split(b'\0', 1)
        got = json.loads(text)
        self._note(got.get('method'), got.get('params', {}))
        return got

    def _note(self, event, params):
        if event == 'Network.requestWillBeSent': self.asked[params['requestId']] = params['request']['url']
        # asked for by a script, and stopped by the page's policy before anything was sent
        if event == 'Network.loadingFailed' and params.get('blockedReason') == 'csp':
            self.asked.pop(params['requestId'], None)
        if event == 'Runtime.exceptionThrown':
            details = params['exceptionDetails']
            self.errors.append(details.get('exception', {}).get('description', details['text']))
        if event == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.errors.append(params['entry']['text'])

    def call(self, method, **params): return self._call(method, self.session, **params)

    def open(self, html):
        "Show a page; returns when it is loaded"
        file = self.folder/'page.html'
        file.write_text(html, encoding='utf-8')
        self.call('Page.navigate', url='about:blank')
        self.asked.clear()
        self.errors.clear()
        self.call('Page.navigate', url=file.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def __call__(self, script):
        "The value of an expression"
        got = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in got, got['exceptionDetails']['exception']['description']
        return got['result'].get('value')

    def wait(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not self(condition):
            assert time.monotonic() < end, f'never: {condition}'
            time.sleep(.02)

    def resize(self, width, height, phone=False):
        metrics = dict(width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call('Emulation.setDeviceMetricsOverride', **metrics)
        self.call('Emulation.setTouchEmulationEnabled', enabled=phone)

    def dark(self, dark=True):
        feature = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self.call('Emulation.setEmulatedMedia', features=[feature])

    def key(self, name, text=''):
        codes = {'Tab': 9, 'Enter': 13, 'Escape': 27, ' ': 32, 'Home': 36}
        codes |= dict(ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40)
        about = dict(key=name, code=name, windowsVirtualKeyCode=codes.get(name, 0))
        text = text or {'Enter': '\r', ' ': ' '}.get(name, '')
        self.call('Input.dispatchKeyEvent', type='keyDown', **about, **(dict(text=text) if text else {}))
        self.call('Input.dispatchKeyEvent', type='keyUp', **about)

    def type(self, text):
        "Write into what has the focus"
        self.call('Input.insertText', text=text)

    def middle(self, selector):
        "The middle of an element, in view"
        box = self(f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();
            return [b.x + b.width/2, b.y + b.height/2]; }})()""")
        return dict(x=box[0], y=box[1])

    def touch(self, kind, *points):
        self.call('Input.dispatchTouchEvent', type=kind, touchPoints=list(points))

    def tap(self, selector):
        self.touch('touchStart', self.middle(selector))
        self.touch('touchEnd')

    def mouse(self, kind, point, **more): self.call('Input.dispatchMouseEvent', type=kind, **point, **more)

    def click(self, selector):
        point = self.middle(selector)
        for kind in ('mousePressed', 'mouseReleased'): self.mouse(kind, point, button='left', clickCount=1)

    def picture(self, file, whole=False):
        got = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(got['data']))

    def tree(self):
        "What a screen reader is told: (role, name) of all that it comes by"
        nodes = self.call('Accessibility.getFullAXTree')['nodes']
        value = lambda node, part: node.get(part, {}).get('value', '')
        return [(value(n, 'role'), value(n, 'name')) for n in nodes if not n.get('ignored')]
