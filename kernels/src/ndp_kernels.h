// The C interface of the kernels: plain structs, plain pointers, one call per kernel.
//
// All three launchers put work on the stream and return; none allocates or synchronises, so each
// may be captured in a CUDA graph. Each returns nullptr, or a line that begins with the kernel's
// name and names the argument that is wrong (or CUDA's own error); on an error about an argument
// nothing was launched. The line is a constant: it need not be freed and may be kept.
//
// Pointers are device pointers, 16-byte aligned, and no output may overlap anything else. In the
// host build (NDP_HOST) they are ordinary pointers and `stream` is ignored.
#ifndef NDP_KERNELS_H
#define NDP_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NDP_KERNELS_ABI 1

enum { NDP_FP32 = 0, NDP_FP16 = 1 };  // dtype
enum { NDP_NCHW = 0, NDP_NHWC = 1 };  // layout, dense

// RBFRM, equations 3-6 for K = 2 and K = 4 at once.
typedef struct {
    int32_t dtype, layout;
    int32_t images;                       // 1 to 64
    int32_t channels;                     // C, a multiple of 8
    int32_t height, width;                // of the features, multiples of 4
    int32_t ref_height, ref_width;        // of the reference, multiples of 4
    float softmax_scale;                  // above 0, at most 64
    int32_t multiprocessors;              // to spread small maps over; 0 asks CUDA (1 on a host)
    const void* features;                 // [N, C, H, W] in the given layout
    const void* reference;                // [1, C, h, w] in the given layout and dtype
    const float* prepared;                // see ndp_rbfrm_prepared_floats
    void *rep2, *rep4, *fused;            // R2, R4 and U = F + R2 + R4, as the features
    void* workspace;                      // 256-byte aligned
    uint64_t workspace_bytes;             // at least ndp_rbfrm_workspace_bytes
} NdpRbfrm;

const char* ndp_rbfrm(const NdpRbfrm* args, void* stream);

// Bytes that `workspace` needs; 0 for sizes that ndp_rbfrm refuses. Reads dtype, layout, the
// sizes and multiprocessors.
// Large maps are worked on in pieces, so that this stays near 64 MiB or what 32 patches need,
// whichever is more.
uint64_t ndp_rbfrm_workspace_bytes(const NdpRbfrm* args);

// What depends on the reference alone, computed once in float64 (ndp_edge/model/prepared.py) and
// rounded to float32. With R = (h/4)(w/4) patches of K = 4 in raster order, j of them, and the
// four 2x2 patches of patch j in raster order, q of them:
//   mean2 [2, 2, C]      mean over all 2x2 patches, at row ky, column kx, channel c
//   mean4 [4, 4, C]      mean over all 4x4 patches
//   key2  [R, 4]         1 / max(norm of the 2x2 patch times shift[j], 1e-12 times shift[j]), at most 1e30
//   key4  [R]            the same of the 4x4 patch
//   shift [R]            a power of two that brings the patch's largest magnitude into [1, 2);
//                        1 where the patch is all zero, and 1 everywhere for FP16
// one behind the other: 20 C + 6 R floats.
uint64_t ndp_rbfrm_prepared_floats(int32_t channels, int32_t ref_height, int32_t ref_width);

// The FFM's selection, equations 7 and 8.
typedef struct {
    int32_t dtype, layout;
    int32_t images, channels, height, width;  // channels a multiple of 8, sides of 4
    const void* logits;                       // [N, 3C, H, W]; branch order R4, R2, F
    const void *rep4, *rep2, *features;       // [N, C, H, W]
    void* selected;                           // [N, C, H, W]
} NdpFfmSelect;

const char* ndp_ffm_select(const NdpFfmSelect* args, void* stream);

// 5x5 median (border replicated) and its maximum over each map. A NaN in a pixel's window makes
// that pixel NaN, and one in a map makes its maximum NaN: a broken net must not look like a good
// product.
typedef struct {
    int32_t images, height, width;  // sides at least 1
    const float* maps;              // [N, H, W]
    float* smoothed;                // [N, H, W]
    float* peaks;                   // [N]
    void* workspace;                // 256-byte aligned
    uint64_t workspace_bytes;       // at least ndp_smooth_max_workspace_bytes
} NdpSmoothMax;

const char* ndp_smooth_max(const NdpSmoothMax* args, void* stream);
uint64_t ndp_smooth_max_workspace_bytes(const NdpSmoothMax* args);

// NDP_KERNELS_ABI of the library, for loaders that were built against another header.
int32_t ndp_kernels_abi(void);

#ifdef __cplusplus
}
#endif
#endif
