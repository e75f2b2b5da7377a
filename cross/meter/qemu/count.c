/* Counts the instructions of a program under QEMU's user-mode emulation, and notes the count at every
 * write to standard output: seco-meter writes one line before and one after each of its phases. One number a
 * line goes to the file given as out=FILE. Nothing is slowed down but by an addition for every block, so
 * that QUIC's timers see an ordinary machine.
 *
 * QEMU's plugin interface is declared here as far as it is used (qemu-plugin.h, version 1, QEMU 4.2 and
 * later), because Debian ships the interface without the header.
 *
 * cc -O2 -shared -fPIC -o count.so count.c
 * qemu-aarch64 -plugin ./count.so,out=counts.txt,write=64 PROGRAM
 * write= is the number of the system call: 64 on aarch64, 4 on arm, 1 on x86-64. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct tb;
enum inline_op { ADD_U64 };
typedef void (*translate_cb)(plugin_id id, struct tb *block);
typedef void (*syscall_cb)(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translate_cb callback);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct tb *block, enum inline_op op, void *counter,
                                                     uint64_t add);
extern size_t qemu_plugin_tb_n_insns(const struct tb *block);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id id, syscall_cb callback);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t executed;
static int64_t write_number = -1;
static FILE *out;

static void translated(plugin_id id, struct tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == write_number && (uint32_t)a1 == 1) {
        fprintf(out, "%llu\n", (unsigned long long)executed);
        fflush(out);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc,
                                                               char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
        else if (strncmp(argv[i], "write=", 6) == 0)
            write_number = atoll(argv[i] + 6);
    }
    if (!out || write_number < 0) {
        fprintf(stderr, "count: give out=FILE,write=NUMBER\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
