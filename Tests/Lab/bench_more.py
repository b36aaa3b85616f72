"""Rows of the bench besides start and boot: SeaBIOS to the boot sector, going on from a saved state, and a disk under fio."""
import json
import os
import re
import socket
import struct
import subprocess
import time

RAM = 128 << 20         # bytes that the guest below fills, so that there is something to save


def boot_sector():
    """A disk whose first sector writes 'A', goes to protected mode, fills RAM from 1 MiB on, and then writes a 'B' now and again."""
    real = bytes.fromhex('fa 31c0 8ed8 baf803 b041 ee')                             # cli; ds = 0; out 0x3f8, 'A'
    protected = bytes.fromhex('66b81000 8ed8 8ec0 bf00001000 b9') + struct.pack('<I', RAM // 4) + bytes.fromhex('b83412aa55 f3ab')
    again = bytes.fromhex('66baf803 b042 ee b9204e0000 e2fe')
    again += bytes([0xEB, 0x100 - len(again) - 2])
    enter = len(real) + 5 + 3 + 2 + 3 + 5                                           # where protected mode begins
    table = enter + len(protected) + len(again)
    real += bytes.fromhex('0f0116') + struct.pack('<H', 0x7C00 + table + 24)        # lgdt
    real += bytes.fromhex('0f20c0 0c01 0f22c0 ea') + struct.pack('<HH', 0x7C00 + enter, 8)
    gdt = bytes(8) + bytes.fromhex('ffff0000009acf00 ffff00000092cf00') + struct.pack('<HI', 23, 0x7C00 + table)
    return ((real + protected + again + gdt).ljust(510, b'\0') + b'\x55\xAA').ljust(1 << 20, b'\0')


class Control:
    """A client of QMP, which our control socket speaks too."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.01)
        self.lines = self.socket.makefile('r')
        self.lines.readline()
        self.ask('qmp_capabilities')

    def ask(self, name, descriptor=None, **arguments):
        line = (json.dumps({'execute': name, 'arguments': arguments, 'id': 1}) + '\n').encode()
        if descriptor is None:
            self.socket.sendall(line)
        else:
            socket.send_fds(self.socket, [line], [descriptor])
        while True:
            answer = json.loads(self.lines.readline())
            if 'return' in answer:
                return answer['return']
            if 'error' in answer:
                raise SystemExit('%s: %s' % (name, answer['error']))


def save_ours(control, path):
    control.ask('pause')
    with open(path, 'w+b') as file:
        control.ask('getfd', file.fileno(), fdname='state')
        control.ask('save', fdname='state')


def save_qemu(control, path):
    control.ask('migrate', uri='file:' + path)
    while True:
        status = control.ask('query-migrate').get('status')
        if status == 'completed':
            return
        if status in ('failed', 'cancelled'):
            raise SystemExit('QEMU cannot save its guest')
        time.sleep(0.01)


def firmware_and_restore(bench, note, counted):
    """bench: until(), work, and the commands of both by name, {'apus-vmm pc': [...], ...}."""
    for name, command in bench.firmware.items():
        took, _ = bench.until(command, b'A')
        if counted:
            note(name, 'SeaBIOS', took)
    for name, (command, control_option, save, restore_option) in bench.restore.items():
        path, state = bench.work + '/control', bench.work + '/state'

        def save_it(process, _):
            save(Control(path), state)
        if not os.path.exists(state + name):
            # Saved once: what is measured is how it goes on.
            if os.path.exists(path):
                os.unlink(path)
            bench.until(command + control_option(path), b'B', save_it, limit=60)
            os.rename(state, state + name)
        took, _ = bench.until(command + restore_option(state + name), b'B', limit=60)
        if counted:
            note(name, 'restore', took)


JOBS = [('4k random read, QD1', 'randread', '4k', 1), ('4k random read, QD32', 'randread', '4k', 32), ('4k random write, QD1', 'randwrite', '4k', 1),
        ('4k random write, QD32', 'randwrite', '4k', 32), ('1 MiB sequential read', 'read', '1M', 8), ('1 MiB sequential write', 'write', '1M', 8)]


def fio(bench, note, counted):
    """Operations a second of each job, by the guest's own clock."""
    for name, command in bench.disks.items():
        def read(_, seen):
            return dict(re.findall(r'^fio (\S+) ([0-9.]+)', seen.decode(errors='replace'), re.M))
        _, found = bench.until(command, rb'^fio done', read, limit=120)
        for title, way, size, depth in JOBS:
            if counted:
                note(name, title, float(found['%s-%s-%d' % (way, size, depth)]))


def fio_init():
    """Process 1 of the guest that measures disks, and the jobs, one after the other."""
    script = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
while read -r module; do insmod "/lib/modules/$module" 2> /dev/null; done < /lib/modules/order
fio --minimal /jobs | awk -F';' '{ print "fio", $3, $8 + $49 }' > /dev/console
echo "fio done" > /dev/console
while :; do sleep 9; done
"""
    jobs = ['[global]', 'filename=/dev/vda', 'direct=1', 'ioengine=libaio', 'time_based', 'runtime=2', 'norandommap', 'stonewall']
    for _, way, size, depth in JOBS:
        jobs += ['[%s-%s-%d]' % (way, size, depth), 'rw=' + way, 'bs=' + size, 'iodepth=%d' % depth]
    return script, '\n'.join(jobs + [''])


def fio_initrd(initrd, out):
    """Writes `out` and returns it: the test guest's RAM disk with fio, its libraries and its init behind it."""
    tree = out + '.tree'
    os.makedirs(tree, exist_ok=True)
    path = subprocess.run(['sh', '-c', 'command -v fio'], capture_output=True, text=True, check=True).stdout.strip()
    linked = subprocess.run(['ldd', path], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r'=> (/\S+)', linked)
    for file, place in [(path, 'bin/fio')] + [(p, 'usr/lib/x86_64-linux-gnu/' + os.path.basename(p)) for p in libraries]:
        target = os.path.join(tree, place)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(['cp', '-L', file, target], check=True)
    for name, text in zip(('fio-init', 'jobs'), fio_init()):
        with open(os.path.join(tree, name), 'w') as file:
            file.write(text)
        os.chmod(os.path.join(tree, name), 0o755)
    packed = subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=tree, capture_output=True, check=True).stdout
    with open(initrd, 'rb') as file:
        first = file.read()
    with open(out, 'wb') as file:
        file.write(first + bytes(-len(first) % 4) + packed)
    return out
