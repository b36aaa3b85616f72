#!/usr/bin/python3
"""Did the lab host's emulated processor lose this guest?   lost_guest.py CONTROL-SOCKET   (status 0: yes, and which vCPU; 1: no)

The emulation of VMRUN now and then puts the host's own registers into the guest's control block (kvm-host tells how often). The guest
then stands still for good: it faults on fetching from behind the host's own VMRUN, in kvm_amd, or its instruction pointer is beyond
4 GiB though its processor is not in long mode. No guest can bring a processor there. This looks for that in the machine's saved state
and changes nothing; a test that fails without it fails because of us.
"""
import json
import os
import socket
import struct
import sys
import tempfile


class Control:
    """A client of the monitor's control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.lines = self.socket.makefile('r')
        self.lines.readline()                                       # the greeting

    def ask(self, name, arguments=None, descriptor=None):
        request = (json.dumps({'execute': name, 'arguments': arguments or {}, 'id': 1}) + '\n').encode()
        if descriptor is None:
            self.socket.sendall(request)
        else:
            socket.send_fds(self.socket, [request], [descriptor])
        while True:
            line = self.lines.readline()
            if not line:
                raise EOFError(name)
            answer = json.loads(line)
            if 'return' in answer or 'error' in answer:
                return answer


def processors(file):
    """Name, instruction pointer, CR2 and EFER of each vCPU in a saved machine (the monitor's article "Saved state" has the format)."""
    header = file.read(64)
    table, place = file.read(struct.unpack_from('<I', header, 24)[0]), 0
    while place < len(table):
        length, = struct.unpack_from('<I', table, place)
        name = table[place + 4:place + 4 + length].decode()
        _, offset, count, _ = struct.unpack_from('<IQQI', table, place + 4 + length)
        place += 4 + length + 24
        if not name.startswith('vcpu-'):
            continue
        file.seek(offset)
        data = file.read(count)
        leaves, = struct.unpack_from('<I', data, 4)
        at, states = 8 + leaves * 28 + 4, []                        # version, CPUID, frequency
        for _ in range(3):                                          # MP state, struct kvm_regs, struct kvm_sregs
            length, = struct.unpack_from('<I', data, at + 4)
            states.append(data[at + 8:at + 8 + length])
            at += 8 + length
        # sixteen general registers, rip; eight segments, two tables, cr0 cr2 cr3 cr4 cr8, efer
        yield name, *(struct.unpack_from('<Q', states[i], at)[0] for i, at in ((1, 128), (2, 232), (2, 264)))


def host_module():
    """Where the host's kvm_amd is, as a range; empty where it is not loaded."""
    for line in open('/proc/modules'):
        name, size, *_, address = line.split()[:6]
        if name == 'kvm_amd':
            return range(int(address, 16), int(address, 16) + int(size))
    return range(0)


def lost(control):
    """The vCPU that is where no guest can be, or None; also where there is no state to look at. The machine runs on."""
    with tempfile.TemporaryFile() as state:
        control.ask('pause')
        try:
            control.ask('getfd', {'fdname': 'state'}, state.fileno())
            if 'return' not in control.ask('save', {'fdname': 'state'}):
                return None
        finally:
            control.ask('resume')
        state.seek(0)
        host = host_module()
        try:
            for name, pointer, fault, efer in processors(state):
                if pointer in host and fault == pointer or efer & 0x400 == 0 and pointer >= 1 << 32:
                    return '%s at %#x' % (name, pointer)
        except struct.error:
            pass
    return None


if __name__ == '__main__':
    try:
        found = lost(Control(sys.argv[1]))
    except (OSError, EOFError) as error:
        print('%s: %s' % (sys.argv[1], error), file=sys.stderr)
        sys.exit(1)
    if found:
        print(found)
    sys.exit(0 if found else 1)
