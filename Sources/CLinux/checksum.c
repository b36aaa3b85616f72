#include "checksum.h"
#include <string.h>

uint32_t apus_crc32c_portable(uint32_t checksum, const void *bytes, size_t count)
{
    const uint8_t *byte = bytes;
    uint32_t crc = ~checksum;
    while (count--) {
        crc ^= *byte++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1));
    }
    return ~crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t checksum, const uint8_t *byte, size_t count)
{
    uint64_t crc = ~checksum;
    for (; count >= 8; count -= 8, byte += 8) {
        uint64_t word;
        memcpy(&word, byte, 8);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    while (count--) crc = __builtin_ia32_crc32qi((uint32_t)crc, *byte++);
    return ~(uint32_t)crc;
}
#endif

uint32_t apus_crc32c(uint32_t checksum, const void *bytes, size_t count)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) return by_instruction(checksum, bytes, count);
#endif
    return apus_crc32c_portable(checksum, bytes, count);
}
