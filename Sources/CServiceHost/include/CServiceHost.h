/* What the driver needs of Linux and Swift's Glibc module does not show: one header a subject. Every function returns -1 with
   errno on failure unless it says otherwise. */
#pragma once
#include "files.h"
#include "links.h"
#include "processes.h"
