// What a program in a guest might try against its kernel (S29), as a Python program of which each
// line of output is a try: "userns done" or "userns EPERM".
#pragma once

namespace agent_vm::test {

inline constexpr const char* kKernelProbe = R"py(
import ctypes, errno, os, struct
libc = ctypes.CDLL(None, use_errno=True)

def name_of(error):
    return errno.errorcode.get(error, str(error))

def attempt(what, number, *arguments):
    result = libc.syscall(number, *arguments)
    print(what, 'done' if result >= 0 else name_of(ctypes.get_errno()))

def module():
    folder = '/usr/lib/modules/' + os.uname().release
    try:
        file = os.open(folder + '/kernel/drivers/net/dummy.ko', os.O_RDONLY)
    except OSError:
        file = -1                                 # who may load it is asked first
    attempt('module', 313, file, b'', 0)          # finit_module

def memory():
    try:
        os.close(os.open('/dev/mem', os.O_RDWR))
        print('memory done')
    except OSError as error:
        print('memory', name_of(error.errno))

module()
attempt('kexec', 246, 0, 0, None, 0)              # kexec_load, of nothing: unloads
memory()
map_of_one = struct.pack('<IIII', 2, 4, 4, 1) + bytes(112)
attempt('bpf', 321, 0, map_of_one, len(map_of_one))
attempt('userns', 272, 0x10000000)                # unshare
)py";

}  // namespace agent_vm::test
