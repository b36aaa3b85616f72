/* CRC-32C (Castagnoli, iSCSI; RFC 3720 §12.1): the processor has an instruction for it that Swift cannot name. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The checksum of what `checksum` stood for with `count` bytes after it. Starts at 0. */
uint32_t apus_crc32c(uint32_t checksum, const void *bytes, size_t count);
/* The same without the instruction: what a processor without SSE 4.2 gets, and what tests compare with. */
uint32_t apus_crc32c_portable(uint32_t checksum, const void *bytes, size_t count);
