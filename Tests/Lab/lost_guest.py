#!/usr/bin/python3
"""Which guests has the lab host's emulated processor lost?

    lost_guest.py          looks for some seconds; a line each, and status 0 if there is one, else 1
    lost_guest.py watch    looks again and again until it is ended, and tells of each once

The emulation of VMRUN now and then puts the host's own registers into the guest's control block: of ten fresh lab hosts that started two
guests at once, one lost a guest and one its own kernel. Such a guest stands still for good: whenever it is entered it is behind the
host's own VMRUN, where no guest can be, and leaves from there. This looks at what leaves from there, with KVM's tracepoint `kvm_exit`.
It needs root, disturbs no guest, and finds nothing where KVM is not AMD's. Without its word, a test that fails fails because of us.
"""
import collections
import os
import re
import subprocess
import sys
import time

TRACE = '/sys/kernel/tracing'
SECONDS = 3
SEEN = 20           # exits from one address in that time; a lost guest has ten thousand


def vmrun():
    """Where the host's code around VMRUN is, as a range of addresses; None where there is none."""
    with open('/proc/kallsyms') as symbols:
        for line in symbols:
            address, _, name = line.split()[:3]
            if name == '__svm_vcpu_run':
                return int(address, 16), int(address, 16) + 0x400
    return None


def write(name, text):
    with open(os.path.join(TRACE, name), 'w') as file:
        file.write(text)


def lost():
    """Process → its lost vCPU in words."""
    place = vmrun()
    if place is None:
        return {}
    if not os.path.exists(TRACE + '/events'):
        subprocess.run(['mount', '-t', 'tracefs', 'tracefs', TRACE], check=True)
    write('events/kvm/kvm_exit/filter', 'guest_rip >= %#x && guest_rip < %#x' % place)
    write('trace', '')
    write('events/kvm/kvm_exit/enable', '1')
    time.sleep(SECONDS)
    write('events/kvm/kvm_exit/enable', '0')
    with open(TRACE + '/trace') as trace:
        exits = re.findall(r'^ *(\S+)-(\d+) .* rip (0x[0-9a-f]+)', trace.read(), re.M)
    found = {}
    for (name, thread, pointer), count in collections.Counter(exits).items():
        if count < SEEN:
            continue
        try:
            with open('/proc/%s/status' % thread) as status:
                process = int(re.search(r'^Tgid:\s*(\d+)', status.read(), re.M).group(1))
        except FileNotFoundError:       # it has ended meanwhile
            continue
        found[process] = "the lab host's processor lost a guest: %s of process %d, at %s" % (name, process, pointer)
    return found


def main():
    told = set()
    while True:
        found = lost()
        for process, words in found.items():
            if process not in told:
                print(words, flush=True)
        told.update(found)
        if sys.argv[1:] != ['watch']:
            return 0 if found else 1
        time.sleep(SECONDS)


if __name__ == '__main__':
    sys.exit(main())
