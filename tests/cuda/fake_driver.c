/* A libcuda.so.1 of host memory, so that pycuda and cuda-python run without a card.

   It has the functions that ndp_edge.cuda calls and none beside them. Work happens at once;
   what it is for is signatures and handles: a dead or foreign handle, a copy that leaves its
   buffer or a call without the context is an error, as with the real driver. Asynchrony is the
   business of tests/cuda/fake.py.

   NDP_FAKE_FAIL="cuMemAlloc_v2:2" makes that function fail with that code;
   NDP_FAKE_DEVICES=0 is a driver without a card; fake_alive() counts what was not freed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101,
       INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };
enum kind { FREED, PINNED, DEVICE, STREAM, EVENT, GRAPH, EXEC };

typedef int code;
typedef struct { void *to; const void *from; size_t bytes; } copy;
typedef struct { enum kind kind; size_t bytes; char *memory; struct record *graph; } thing;
typedef struct record { copy copies[64]; int n; } record;

#define THINGS 4096
static thing things[THINGS];
static int made, retained;
static record *capturing;
static void *capturing_on;
static __thread int depth; /* of this thread's stack of contexts: there is only one context */
static char context[1];

static code failing(const char *call) {
    const char *wanted = getenv("NDP_FAKE_FAIL");
    size_t n = strlen(call);
    return wanted && !strncmp(wanted, call, n) && wanted[n] == ':' ? atoi(wanted + n + 1) : OK;
}

#define ENTER do { code c_ = failing(__func__); if (c_) return c_; } while (0)
#define NEED_CONTEXT do { ENTER; if (!depth) return INVALID_CONTEXT; } while (0)

static void *make(enum kind kind, size_t bytes) {
    if (made == THINGS) abort();
    thing *t = &things[made++];
    t->kind = kind;
    t->bytes = bytes;
    t->memory = bytes ? malloc(bytes) : NULL;
    if (bytes) memset(t->memory, 0xDB, bytes);
    return t;
}

static thing *live(void *handle, enum kind kind) {
    thing *t = handle;
    int inside = t >= things && t < things + made && (t - things) >= 0;
    return inside && t->kind == kind ? t : NULL;
}

static thing *around(const void *address, size_t bytes, enum kind kind) {
    const char *a = address;
    for (int i = 0; i < made; i++) {
        thing *t = &things[i];
        if (t->kind == kind && a >= t->memory && a + bytes <= t->memory + t->bytes) return t;
    }
    return NULL;
}

static code drop(thing *t) {
    if (!t) return INVALID_VALUE;
    free(t->memory);
    free(t->graph);
    memset(t, 0, sizeof *t);
    return OK;
}

int fake_alive(void) {
    int alive = 0;
    for (int i = 0; i < made; i++) alive += things[i].kind != FREED;
    return alive;
}
int fake_retained(void) { return retained; }
int fake_depth(void) { return depth; }

/* --- the driver and its card --- */

static int cards(void) {
    const char *told = getenv("NDP_FAKE_DEVICES");
    return told ? atoi(told) : 1;
}
code cuInit(unsigned flags) { ENTER; return flags ? INVALID_VALUE : cards() ? OK : NO_DEVICE; }
code cuDriverGetVersion(int *out) { ENTER; *out = 12060; return OK; }
code cuDeviceGetCount(int *out) { ENTER; *out = cards(); return OK; }
code cuDeviceGet(int *out, int i) { ENTER; *out = i; return i >= 0 && i < cards() ? OK : INVALID_DEVICE; }
code cuDeviceGetName(char *out, int n, int dev) { ENTER; snprintf(out, n, "Fake GPU %d", dev); return OK; }
code cuDeviceTotalMem_v2(size_t *out, int dev) { ENTER; *out = (size_t)8 << 30; return dev; }
code cuDeviceComputeCapability(int *major, int *minor, int dev) { ENTER; *major = 8; *minor = 7; return dev; }
code cuDeviceGetAttribute(int *out, int kind, int dev) {
    ENTER;
    *out = kind == 75 ? 8 : kind == 76 ? 7 : 1;
    return dev;
}
static const char *text(code c, int name) {
    switch (c) {
    case INVALID_VALUE: return name ? "CUDA_ERROR_INVALID_VALUE" : "invalid argument";
    case OUT_OF_MEMORY: return name ? "CUDA_ERROR_OUT_OF_MEMORY" : "out of memory";
    case NO_DEVICE: return name ? "CUDA_ERROR_NO_DEVICE" : "no CUDA-capable device is detected";
    case INVALID_DEVICE: return name ? "CUDA_ERROR_INVALID_DEVICE" : "invalid device ordinal";
    case INVALID_CONTEXT: return name ? "CUDA_ERROR_INVALID_CONTEXT" : "invalid device context";
    case INVALID_HANDLE: return name ? "CUDA_ERROR_INVALID_HANDLE" : "invalid resource handle";
    case 700: return name ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "an illegal memory access was encountered";
    }
    return name ? "CUDA_ERROR_UNKNOWN" : "unknown error";
}
code cuGetErrorName(code c, const char **out) { *out = text(c, 1); return OK; }
code cuGetErrorString(code c, const char **out) { *out = text(c, 0); return OK; }

/* --- the context --- */

code cuDevicePrimaryCtxRetain(void **out, int dev) { ENTER; retained++; *out = context; return dev; }
code cuDevicePrimaryCtxRelease_v2(int dev) { ENTER; return retained-- > 0 ? dev : INVALID_CONTEXT; }
code cuCtxPushCurrent_v2(void *c) { ENTER; depth++; return c == context ? OK : INVALID_CONTEXT; }
code cuCtxPopCurrent_v2(void **out) { ENTER; if (!depth) return INVALID_CONTEXT; depth--; *out = context; return OK; }
code cuCtxGetCurrent(void **out) { ENTER; *out = depth ? context : NULL; return OK; }
code cuCtxGetDevice(int *out) { NEED_CONTEXT; *out = 0; return OK; }

/* --- memory --- */

code cuMemHostAlloc(void **out, size_t n, unsigned flags) {
    NEED_CONTEXT;
    (void)flags;
    *out = ((thing *)make(PINNED, n))->memory;
    return OK;
}
code cuMemFreeHost(void *p) { NEED_CONTEXT; return drop(around(p, 1, PINNED)); }
code cuMemAlloc_v2(uintptr_t *out, size_t n) {
    NEED_CONTEXT;
    *out = (uintptr_t)((thing *)make(DEVICE, n))->memory;
    return OK;
}
code cuMemFree_v2(uintptr_t p) { NEED_CONTEXT; return drop(around((void *)p, 1, DEVICE)); }

static code queue(void *stream, void *to, const void *from, size_t bytes) {
    if (!live(stream, STREAM)) return INVALID_HANDLE;
    if (capturing && capturing_on == stream) {
        if (capturing->n == 64) return CAPTURE_UNSUPPORTED;
        capturing->copies[capturing->n++] = (copy){to, from, bytes};
    } else {
        memcpy(to, from, bytes);
    }
    return OK;
}
code cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t n, void *stream) {
    NEED_CONTEXT;
    if (!around((void *)to, n, DEVICE) || !around(from, n, PINNED)) return INVALID_VALUE;
    return queue(stream, (void *)to, from, n);
}
code cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t n, void *stream) {
    NEED_CONTEXT;
    if (!around((void *)from, n, DEVICE) || !around(to, n, PINNED)) return INVALID_VALUE;
    return queue(stream, to, (void *)from, n);
}

/* --- streams and events --- */

code cuStreamCreate(void **out, unsigned flags) {
    NEED_CONTEXT;
    *out = make(STREAM, 0);
    return flags == 1 ? OK : INVALID_VALUE; /* CU_STREAM_NON_BLOCKING: never the default stream's */
}
code cuStreamDestroy_v2(void *s) { NEED_CONTEXT; return drop(live(s, STREAM)); }
code cuStreamSynchronize(void *s) {
    NEED_CONTEXT;
    if (capturing) return CAPTURE_UNSUPPORTED;
    return live(s, STREAM) ? OK : INVALID_HANDLE;
}
code cuStreamWaitEvent(void *s, void *e, unsigned flags) {
    NEED_CONTEXT;
    return live(s, STREAM) && live(e, EVENT) && !flags ? OK : INVALID_HANDLE;
}
code cuEventCreate(void **out, unsigned flags) { NEED_CONTEXT; *out = make(EVENT, 0); return flags; }
code cuEventDestroy_v2(void *e) { NEED_CONTEXT; return drop(live(e, EVENT)); }
code cuEventRecord(void *e, void *s) {
    NEED_CONTEXT;
    return live(e, EVENT) && live(s, STREAM) ? OK : INVALID_HANDLE;
}
code cuEventSynchronize(void *e) { NEED_CONTEXT; return live(e, EVENT) ? OK : INVALID_HANDLE; }
code cuEventElapsedTime(float *ms, void *a, void *b) {
    NEED_CONTEXT;
    *ms = 1.5f;
    return live(a, EVENT) && live(b, EVENT) ? OK : INVALID_HANDLE;
}
code cuEventElapsedTime_v2(float *ms, void *a, void *b) { return cuEventElapsedTime(ms, a, b); }

/* --- graphs: lists of copies --- */

code cuStreamBeginCapture_v2(void *s, int mode) {
    NEED_CONTEXT;
    if (!live(s, STREAM) || capturing || mode != 1) return INVALID_VALUE;
    capturing = calloc(1, sizeof *capturing);
    capturing_on = s;
    return OK;
}
code cuStreamEndCapture(void *s, void **out) {
    NEED_CONTEXT;
    if (!capturing || capturing_on != s) return INVALID_VALUE;
    thing *t = make(GRAPH, 0);
    t->graph = capturing;
    capturing = NULL;
    *out = t;
    return OK;
}
code cuGraphInstantiateWithFlags(void **out, void *g, unsigned long long flags) {
    NEED_CONTEXT;
    if (!live(g, GRAPH) || flags) return INVALID_VALUE;
    thing *t = make(EXEC, 0);
    t->graph = malloc(sizeof(record));
    *t->graph = *((thing *)g)->graph;
    *out = t;
    return OK;
}
code cuGraphLaunch(void *e, void *s) {
    NEED_CONTEXT;
    thing *t = live(e, EXEC);
    if (!t || !live(s, STREAM)) return INVALID_HANDLE;
    for (int i = 0; i < t->graph->n; i++) {
        copy c = t->graph->copies[i];
        memcpy(c.to, c.from, c.bytes);
    }
    return OK;
}
code cuGraphExecDestroy(void *e) { NEED_CONTEXT; return drop(live(e, EXEC)); }
code cuGraphDestroy(void *g) { NEED_CONTEXT; return drop(live(g, GRAPH)); }

/* --- how cuda-python finds all of these --- */

code cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status) {
    static const char *suffixes[] = {"_v2", "", "WithFlags"};
    char full[256];
    (void)version, (void)flags;
    *out = NULL;
    for (int i = 0; i < 3 && !*out; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        Dl_info here;
        dladdr((void *)cuGetProcAddress_v2, &here);
        void *self = dlopen(here.dli_fname, RTLD_LAZY);
        *out = dlsym(self, full);
        Dl_info found;
        /* dlsym also looks into what this library links; take nothing that is not from here. */
        if (*out && (!dladdr(*out, &found) || found.dli_fbase != here.dli_fbase)) *out = NULL;
        dlclose(self);
    }
    if (status) *status = *out ? 0 : 1;
    return *out ? OK : NOT_FOUND;
}
