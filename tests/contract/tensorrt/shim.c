/* Stands for libnvinfer where only the lean runtime (or nothing) of TensorRT can be installed.
 *
 * The Python bindings look these functions up when they are loaded. Those that the lean runtime
 * lacks answer null, as the real ones do where there is no CUDA device; with -DALONE so do all.
 */
#include <stddef.h>

#define MISSING(name) void *name(void) { return NULL; }

MISSING(createInferBuilder_INTERNAL)
MISSING(createNvOnnxParser_INTERNAL)
MISSING(createNvOnnxParserRefitter_INTERNAL)
MISSING(getBuilderPluginRegistry)

int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, char const *library_namespace) {
    (void)logger;
    (void)library_namespace;
    return 1;
}

#ifdef ALONE
MISSING(createInferRefitter_INTERNAL)
MISSING(createInferRuntime_INTERNAL)
MISSING(getPluginRegistry)
#endif
