/* A stand-in for NVIDIA's management library, for tests of code that talks to it.
 *
 * It answers from a file called "scenario" beside the library, read at every
 * call, so that a test changes the world while it is being looked at:
 *
 *   driver RETURN-CODE             what nvmlInit_v2 and the count answer
 *   gpus N                         how many are listed
 *   gpu I name TEXT | pci TEXT | uuid TEXT | state RETURN-CODE | throttle MASK | recovery N | rows_failed 1
 *   slice I K PROFILE              a MIG slice
 *   link I L ADDRESS               an active NVLink ("-": the other end is not told)
 *   p2p I J                        NVLink works between the two
 *   process I PID MIB
 *   xid SERIAL I CODE              reported once to whoever waits
 *   hang FUNCTION                  that function does not come back while the line is there
 *   crash FUNCTION                 that function writes where nothing is
 *   print FUNCTION                 that function writes to standard output, as no library should
 *   without FUNCTION               that function answers "function not found", as an old driver
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, NO_FUNCTION = 13 };
enum { GPUS = 16, SLICES = 8, TEXT = 256 };

typedef struct { int gpu, slice; } device;
static device devices[GPUS], slices[GPUS][SLICES];
static int last_serial, event_set;

static void scenario_path(char *path, size_t size) {
    Dl_info info;
    dladdr((void *)&scenario_path, &info);
    snprintf(path, size, "%s", info.dli_fname);
    char *slash = strrchr(path, '/');
    snprintf(slash + 1, size - (size_t)(slash + 1 - path), "scenario");
}

/* Rest of the N-th line that begins with these words; nothing if there is none. */
static int nth(int n, const char *words, char *rest) {
    char path[4096], line[TEXT];
    scenario_path(path, sizeof path);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = strlen(words);
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        int same = !strncmp(line, words, length) && (line[length] == ' ' || !line[length]);
        if (same && n-- == 0) {
            if (rest) snprintf(rest, TEXT, "%s", line[length] ? line + length + 1 : "");
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int number(const char *words, int otherwise) {
    char rest[TEXT];
    return nth(0, words, rest) ? atoi(rest) : otherwise;
}

/* Every function begins with this: hangs, or is absent. */
static int entered(const char *function) {
    char words[TEXT];
    snprintf(words, sizeof words, "hang %s", function);
    while (nth(0, words, 0)) usleep(5000);
    snprintf(words, sizeof words, "print %s", function);
    if (nth(0, words, 0)) { puts("{\"measured\":{\"gpus\":[]}}"); fflush(stdout); }
    snprintf(words, sizeof words, "crash %s", function);
    if (nth(0, words, 0)) *(volatile int *)8 = 1;
    snprintf(words, sizeof words, "without %s", function);
    return nth(0, words, 0) ? NO_FUNCTION : OK;
}
#define ENTER() do { int code_ = entered(__func__); if (code_) return code_; } while (0)

static int of_gpu(int gpu, const char *key, char *rest) {
    char words[TEXT];
    snprintf(words, sizeof words, "gpu %d %s", gpu, key);
    return nth(0, words, rest);
}
static int gpu_number(int gpu, const char *key, int otherwise) {
    char rest[TEXT];
    return of_gpu(gpu, key, rest) ? atoi(rest) : otherwise;
}
static int state(const device *d) { return gpu_number(d->gpu, "state", OK); }
/* What reaches the hardware, and so fails if the GPU is not there. */
#define ALIVE(d) do { ENTER(); int code_ = state(d); if (code_) return code_; } while (0)

int nvmlInit_v2(void) { ENTER(); return number("driver", OK); }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.86.16"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER();
    *count = (unsigned)number("gpus", 0);
    return number("driver", OK);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **d) {
    ENTER();
    if (index >= (unsigned)number("gpus", 0)) return INVALID;
    devices[index] = (device){(int)index, -1};
    *d = &devices[index];
    return OK;
}
int nvmlDeviceGetUUID(const device *d, char *text, unsigned size) {
    ENTER();
    char rest[TEXT];
    if (d->slice >= 0) snprintf(text, size, "MIG-%08d-%d", d->gpu, d->slice);
    else if (of_gpu(d->gpu, "uuid", rest)) snprintf(text, size, "%s", rest);
    else snprintf(text, size, "GPU-%08d", d->gpu);
    return OK;
}
static int profile(const device *d, char *rest) {
    char words[TEXT];
    snprintf(words, sizeof words, "slice %d %d", d->gpu, d->slice);
    return nth(0, words, rest);
}
int nvmlDeviceGetName(const device *d, char *text, unsigned size) {
    ALIVE(d);
    char name[TEXT] = "NVIDIA Test", part[TEXT] = "";
    of_gpu(d->gpu, "name", name);
    if (d->slice >= 0 && profile(d, part)) snprintf(text, size, "%s MIG %s", name, part);
    else snprintf(text, size, "%s", name);
    return OK;
}
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(const device *d, struct pci *pci) {
    ENTER();
    char rest[TEXT] = "";
    if (!of_gpu(d->gpu, "pci", rest)) return UNSUPPORTED;
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%.31s", rest);
    return OK;
}
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(const device *d, struct memory *memory) {
    ALIVE(d);
    unsigned long long mib = d->slice >= 0 ? 9728 : 81559;
    memory->total = mib << 20;
    memory->used = 1024ULL << 20;
    memory->free = memory->total - memory->used;
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(const device *d, int *major, int *minor) { ENTER(); (void)d; *major = 9; *minor = 0; return OK; }

static int n_slices(int gpu) {
    int n = 0;
    for (int k = 0; k < SLICES; k++) {
        char rest[TEXT];
        device d = {gpu, k};
        n += profile(&d, rest);
    }
    return n;
}
int nvmlDeviceGetMigMode(const device *d, unsigned *current, unsigned *pending) {
    ALIVE(d);
    *current = *pending = n_slices(d->gpu) > 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(const device *d, unsigned *count) { ALIVE(d); *count = SLICES - 1; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(const device *d, unsigned k, device **slice) {
    ALIVE(d);
    char rest[TEXT];
    slices[d->gpu][k] = (device){d->gpu, (int)k};
    *slice = &slices[d->gpu][k];
    return profile(*slice, rest) ? OK : NOT_FOUND;
}

struct utilization { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(const device *d, struct utilization *rates) {
    ALIVE(d);
    if (n_slices(d->gpu)) return UNSUPPORTED;
    *rates = (struct utilization){50, 20};
    return OK;
}
#define NUMBER(function, value) int function(const device *d, unsigned *n) { ALIVE(d); *n = (value); return OK; }
NUMBER(nvmlDeviceGetPowerUsage, 350500)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, 700000)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetPcieReplayCounter, 2)
int nvmlDeviceGetTemperature(const device *d, int sensor, unsigned *n) { ALIVE(d); (void)sensor; *n = 55; return OK; }
int nvmlDeviceGetClockInfo(const device *d, int type, unsigned *n) { ALIVE(d); *n = type == 2 ? 2619 : 1980; return OK; }
int nvmlDeviceGetCurrentClocksThrottleReasons(const device *d, unsigned long long *mask) {
    ALIVE(d);
    *mask = (unsigned long long)gpu_number(d->gpu, "throttle", 0);
    return OK;
}
int nvmlDeviceGetTotalEccErrors(const device *d, int type, int counter, unsigned long long *n) {
    ALIVE(d);
    *n = type ? 1 : 7;
    return counter == 1 ? OK : INVALID;
}

struct field { unsigned id, scope; long long at, latency; int type, code; union { unsigned n; unsigned long long wide; } value; };
int nvmlDeviceGetFieldValues(const device *d, int count, struct field *fields) {
    ALIVE(d);
    for (int n = 0; n < count; n++) {
        struct field *f = &fields[n];
        f->type = 1;
        f->code = OK;
        f->value.wide = 0;
        switch (f->id) {
        case 142: f->value.n = 3; break;
        case 143: case 144: break;
        case 145: f->value.n = (unsigned)gpu_number(d->gpu, "rows_failed", 0); break;
        case 38: case 45: f->value.n = 4; break;
        case 230: {
            char rest[TEXT];
            if (of_gpu(d->gpu, "recovery", rest)) f->value.n = (unsigned)atoi(rest);
            else f->code = UNSUPPORTED;
            break;
        }
        default: f->code = UNSUPPORTED;
        }
    }
    return OK;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(const device *d, unsigned *count, struct process *processes) {
    ALIVE(d);
    char words[TEXT], rest[TEXT];
    snprintf(words, sizeof words, "process %d", d->gpu);
    unsigned n = 0, room = *count;
    for (; nth((int)n, words, rest); n++) {
        unsigned pid = 0, mib = 0;
        sscanf(rest, "%u %u", &pid, &mib);
        if (processes && n < room) processes[n] = (struct process){pid, (unsigned long long)mib << 20, ~0u, ~0u};
    }
    *count = n;
    return n > room ? TOO_SMALL : OK;
}

int nvmlDeviceGetNvLinkState(const device *d, unsigned link, unsigned *active) {
    ALIVE(d);
    char words[TEXT];
    snprintf(words, sizeof words, "link %d", d->gpu);
    if (!nth(0, words, 0)) return UNSUPPORTED;
    snprintf(words, sizeof words, "link %d %u", d->gpu, link);
    *active = (unsigned)nth(0, words, 0);
    return OK;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(const device *d, unsigned link, struct pci *pci) {
    ALIVE(d);
    char words[TEXT], rest[TEXT];
    snprintf(words, sizeof words, "link %d %u", d->gpu, link);
    if (!nth(0, words, rest) || !strcmp(rest, "-")) return UNSUPPORTED;
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%.31s", rest);
    return OK;
}
int nvmlDeviceGetP2PStatus(const device *a, const device *b, int index, int *status) {
    ALIVE(a);
    char words[TEXT];
    snprintf(words, sizeof words, "p2p %d %d", a->gpu, b->gpu);
    *status = index == 2 && nth(0, words, 0) ? 0 : 5;
    return OK;
}
int nvmlDeviceGetTopologyCommonAncestor(const device *a, const device *b, int *level) {
    ALIVE(a);
    *level = a->gpu / 2 == b->gpu / 2 ? 40 : 50;
    return OK;
}

int nvmlEventSetCreate(int **set) { ENTER(); *set = &event_set; return OK; }
int nvmlEventSetFree(int *set) { (void)set; return OK; }
int nvmlDeviceGetSupportedEventTypes(const device *d, unsigned long long *types) { ENTER(); (void)d; *types = 0x1f; return OK; }
int nvmlDeviceRegisterEvents(const device *d, unsigned long long types, int *set) { ALIVE(d); (void)types; (void)set; return OK; }
struct event { device *d; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
int nvmlEventSetWait_v2(int *set, struct event *event, unsigned timeout_ms) {
    (void)set;
    for (unsigned waited_ms = 0;; waited_ms += 5) {
        ENTER();
        char rest[TEXT];
        for (int n = 0; nth(n, "xid", rest); n++) {
            int serial = 0, gpu = 0, code = 0;
            sscanf(rest, "%d %d %d", &serial, &gpu, &code);
            if (serial <= last_serial) continue;
            last_serial = serial;
            *event = (struct event){&devices[gpu], 8, (unsigned long long)code, ~0u, ~0u};
            return OK;
        }
        if (waited_ms >= timeout_ms) return TIMEOUT;
        usleep(5000);
    }
}
