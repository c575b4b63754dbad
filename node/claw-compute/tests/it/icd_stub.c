/* A Vulkan driver that does what the variable ICD_STUB says when the loader opens it. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VK_ERROR_INCOMPATIBLE_DRIVER (-9)

__attribute__((constructor)) static void opened(void) {
    const char *word = getenv("ICD_STUB");
    if (word == NULL) return;
    if (strcmp(word, "abort") == 0) abort();
    if (strcmp(word, "fault") == 0) *(volatile int *)8 = 1;
    if (strcmp(word, "hang") == 0) for (;;) pause();
    if (strcmp(word, "print") == 0) {
        puts("hello, I am a driver");
        fflush(stdout);
    }
}

int32_t vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    (void)version;
    return VK_ERROR_INCOMPATIBLE_DRIVER;
}

void *vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    (void)name;
    return NULL;
}
