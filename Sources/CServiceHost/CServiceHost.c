#include "CServiceHost.h"
