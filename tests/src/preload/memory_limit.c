/* A library to preload: no tensor larger than MEMORY_BLOCK_MAX bytes is to be had. libtorch takes memory for tensors on
 * the CPU by posix_memalign, and nothing else that is large does. */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

int posix_memalign(void **block, size_t alignment, size_t size) {
    const char *most = getenv("MEMORY_BLOCK_MAX");
    if (most && size > strtoull(most, NULL, 10)) return ENOMEM;
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
