/* PROMISE(broken, holds): at this instant `holds` must be true. `broken` names what is wrong
   otherwise, and is what the checker prints: "assertion violated !(two_holders)". */
#define PROMISE(broken, holds)  broken = broken || !(holds); assert(!broken)
