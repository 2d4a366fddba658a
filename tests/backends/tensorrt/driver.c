/* An NVIDIA driver that is made up, in as far as this program asks it: built as libcuda.so.1 and
 * as libnvidia-ml.so.1, told by the environment what to answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(char const *name, int otherwise) {
    char const *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static char const *words(char const *name, char const *otherwise) {
    char const *text = getenv(name);
    return text ? text : otherwise;
}

int cuInit(unsigned flags) { return number("FAKE_INIT", 0); }

int cuDriverGetVersion(int *version) {
    *version = number("FAKE_CUDA", 13000);
    return 0;
}

int cuDeviceGetCount(int *count) {
    *count = number("FAKE_COUNT", 1);
    return number("FAKE_COUNT_CODE", 0);
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "%s", words("FAKE_NAME", "NVIDIA Made-Up 1000"));
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)number("FAKE_GIB", 24) << 30;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int const capability = number("FAKE_CAPABILITY", 89);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
    return number("FAKE_ATTRIBUTE_CODE", 0);
}

int cuDeviceGetPCIBusId(char *address, int length, int device) {
    snprintf(address, length, "0000:%02x:00.0", device + 1);
    return 0;
}

int nvmlInit_v2(void) { return number("FAKE_NVML", 0); }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "%s", words("FAKE_DRIVER", "580.65.06"));
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(char const *address, void **handle) {
    /* The second card, whatever number CUDA gives it. */
    *handle = (void *)(size_t)(strcmp(address, "0000:02:00.0") == 0 ? 2 : 1);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *memory) {
    memory[0] = 24ull << 30;
    memory[1] = (size_t)handle == 2 ? 5ull << 30 : 20ull << 30;
    memory[2] = memory[0] - memory[1];
    return 0;
}
