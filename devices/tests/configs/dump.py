#!/usr/bin/env python3
"""Dumps the config spaces of QEMU's device models into this folder.

Each model sits behind a root port of a machine whose CPU is stopped; this script plays the firmware
through QEMU's qtest protocol: it numbers the buses, sizes and places the BARs, and reads config
space through ECAM. A dump has seven lines as the first of sysfs' `resource` (start, end, flags),
then the lines of config space that are not zero, as `lspci -x` writes them, and its size.
"""

import pathlib
import subprocess
import sys
import tempfile

ECAM = 0xE0000000
MODELS = {
    "ahci": "ich9-ahci",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "edu": "edu",
    "igb": "igb",
    "ivshmem": "ivshmem-plain,memdev=shared",
    "megasas": "megasas",
    "nvme": "nvme,serial=1,drive=disk",
    "pci-testdev": "pci-testdev",
    "pvscsi": "pvscsi",
    "rtl8139": "rtl8139",
    "sdhci": "sdhci-pci",
    "virtio-blk": "virtio-blk-pci,drive=disk",
    "virtio-net": "virtio-net-pci",
    "xhci": "qemu-xhci",
}


class Machine:
    def __init__(self, device, disk):
        self.qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "q35", "-S", "-display", "none", "-nodefaults",
             "-qtest", "stdio", "-drive", f"if=none,id=disk,format=raw,file={disk}",
             "-object", "memory-backend-ram,id=shared,size=2G",
             "-device", "pcie-root-port,id=rp0,bus=pcie.0,addr=3", "-device", f"{device},bus=rp0"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        # Of the host bridge: PCIEXBAR with its enable bit, 256 buses.
        self.send("outl 0xcf8 0x80000060")
        self.send(f"outl 0xcfc {ECAM | 1:#x}")
        # Of the root port: primary, secondary and subordinate bus number.
        self.send(f"writel {ECAM + (3 << 15) + 0x18:#x} 0x00010100")

    def send(self, line):
        self.qemu.stdin.write(line + "\n")
        self.qemu.stdin.flush()
        while not (answer := self.qemu.stdout.readline()).startswith("OK"):
            if not answer:
                sys.exit(f"QEMU went away after '{line}'")
        return answer.split()[1:]

    def read(self, offset):
        return int(self.send(f"readl {ECAM + (1 << 20) + offset:#x}")[0], 16)

    def write(self, offset, value):
        self.send(f"writel {ECAM + (1 << 20) + offset:#x} {value:#x}")

    def probe(self, offset, value):
        self.write(offset, value)
        return self.read(offset)

    def place_bars(self):
        """Sizes and places the BARs and the ROM; yields start, end and flags of each."""
        ports, memory, wide = 0xC000, 0xFE000000, 0x380000000000
        skip = False
        for index in range(7):
            offset = 0x30 if index == 6 else 0x10 + 4 * index
            value = 0xFFFFF800 if index == 6 else 0xFFFFFFFF
            mask = 0 if skip else self.probe(offset, value)
            if mask == 0:
                skip = False
                yield 0, 0, 0
                continue
            flags = 0 if index == 6 else mask & 0xF
            if flags & 1:
                size, flags, start = -(mask & ~3) & 0xFFFF, 0x40101, ports
                ports = start + max(size, 0x100)
            elif flags & 4:
                mask = mask & ~0xF | self.probe(offset + 4, value) << 32
                size, skip = -mask & (1 << 64) - 1, True
                start = -(-wide // size) * size
                wide = start + size
                self.write(offset + 4, start >> 32)
                flags = 0x140200 | (flags & 8) << 10 | flags & 0xF
            else:
                size = -(mask & ~0xF) & 0xFFFFFFFF
                memory -= max(size, 0x1000)
                start = memory = memory // size * size
                flags = 0x40200 | (flags & 8) << 10 | flags & 0xF
            self.write(offset, start & 0xFFFFFFFF)
            yield start, start + size - 1, flags


def main():
    folder = pathlib.Path(__file__).parent
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(1 << 20)
        for name, device in MODELS.items():
            machine = Machine(device, disk.name)
            lines = [f"# QEMU 10.0, {device.split(',')[0]}, behind a root port"]
            lines += [f"{start:#018x} {end:#018x} {flags:#018x}" for start, end, flags in machine.place_bars()]
            machine.write(4, 0x0103)
            size = 4096 if machine.read(0x100) != 0xFFFFFFFF and has_express(machine) else 256
            data = b"".join(machine.read(at).to_bytes(4, "little") for at in range(0, size, 4))
            lines += [f"{at:03x}: {data[at:at + 16].hex(' ')}" for at in range(0, size, 16)
                      if any(data[at:at + 16])]
            lines.append(f"size: {size}")
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
            machine.qemu.kill()
            machine.qemu.wait()


def has_express(machine):
    at = machine.read(0x34) & 0xFC
    while at:
        header = machine.read(at)
        if header & 0xFF == 0x10:
            return True
        at = header >> 8 & 0xFC
    return False


main()
