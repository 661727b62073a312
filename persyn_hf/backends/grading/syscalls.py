"""The system calls that code in the sandbox may not make: a filter (seccomp) in the kernel's own language.

Namespaces leave some things of the machine shared or unbounded, and the filter refuses the calls that lead there: keys
of the user, sockets to the host of a virtual machine (AF_VSOCK), memory that belongs to no process, tracing, mounts,
other namespaces, and parts of the kernel that no program of this kind needs (io_uring, bpf). A call that is refused
fails with EPERM.
"""

import errno
import platform
import struct


MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # their names in the kernel's audit
REFUSED = {  # name -> its number on x86_64 and on aarch64
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
}
SOCKET = (41, 198)
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: those of the namespace alone
OTHER_ABI = 0x40000000  # x32's numbers begin here
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # places in what the kernel shows to a filter
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


def seccomp_filter(machine: str = "") -> bytes | None:
    """Return the filter of a machine, this one by default; None where none is known (its kind is in no `MACHINES`)."""
    machine = machine or platform.machine()
    if machine not in MACHINES:
        return None
    column = [*MACHINES].index(machine)
    refused = [numbers[column] for numbers in REFUSED.values()]
    families = len(FAMILIES)
    # What follows the refused numbers: the family of a socket is looked at, and all else is allowed.
    end = [
        (EQUAL, 0, families + 2, SOCKET[column]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *((EQUAL, families - at, 0, family) for at, family in enumerate(FAMILIES)),
        (RETURN, 0, 0, REFUSE | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
    ]
    checks = [(AT_LEAST, OTHER_ABI), *((EQUAL, number) for number in refused)]
    last = len(checks) + len(end) - 1  # the place of the refusal, counted from the first check
    program = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, MACHINES[machine]),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (LOAD, 0, 0, NUMBER),
        *((kind, last - at - 1, 0, number) for at, (kind, number) in enumerate(checks)),
        *end,
    ]
    return b"".join(struct.pack("HBBI", *line) for line in program)
