/* Fenced writes: a write of a holder whose right was taken commits never after that.

   A member's fenced transaction waits for the gate, shared, and then looks whether its right stands;
   whoever takes the right away takes the gate exclusively first. The right is a grant of a live
   member, or a leadership with its term: member 0 leads, loses or gives up the leadership, member 1
   leads, and at last member 0 leads again. One old fenced transaction of member 0 may freeze
   anywhere, for ever. */
#include "promise.h"

/* CHECK */
/* RULE NO_GATE_BEFORE_ENDING: stale write */
/* RULE NO_GATE_IN_FENCE: stale write */
/* RULE NO_CHECK_AFTER_GATE: stale write */
/* RULE NO_READ_COMMITTED: stale write */
/* RULE NO_TERM_RISES: stale write */
/* RULE NO_WIN_BY_COMPARE_AND_SWAP: two leaders */
/* RULE NO_FROZEN_GATE_HOLDER_CUT: waits for ever */

#define VACANT 2

byte leader = 0, term = 1;                    /* the committed row */
byte shared;                                  /* holders of the gate */
bool exclusive;
bool frozen;                                  /* the writer, in its transaction */
bool cut;                                     /* its connection was terminated */
bool stands;                                  /* what the writer saw */
byte reigns;                                  /* each win is a reign of its own: what `term` must tell */

bool waiting;
bool stale_write, two_leaders, waits_for_ever;

/* Begun by member 0 in the first reign, under term 1. */
active proctype Writer() {
  {
#if defined(NO_CHECK_AFTER_GATE) || defined(NO_READ_COMMITTED)
    stands = (leader == 0 && term == 1);      /* a snapshot from before the wait is as bad */
#endif
#ifndef NO_GATE_IN_FENCE
    atomic { !exclusive -> shared++ };
#endif
#if !defined(NO_CHECK_AFTER_GATE) && !defined(NO_READ_COMMITTED)
    stands = (leader == 0 && term == 1);
#endif
    if
    :: !stands
    :: stands ->
       if
       :: true
       :: frozen = true; end_frozen: false    /* for ever */
       fi;
       atomic { PROMISE(stale_write, reigns == 0) }     /* write and commit */
    fi
  } unless { cut };
  atomic { if :: shared > 0 && !cut -> shared-- :: else fi }
}

/* Takes the leadership from whoever has it (an ending, or a resignation). */
inline vacate() {
#ifndef NO_GATE_BEFORE_ENDING
  waiting = true;
  if
  :: atomic { shared == 0 -> exclusive = true; waiting = false }
#ifndef NO_FROZEN_GATE_HOLDER_CUT
  :: atomic { shared > 0 && frozen -> cut = true; shared = 0; exclusive = true; waiting = false }
#endif
  fi;
#endif
  atomic { leader = VACANT; exclusive = false }
}

/* Two candidates have seen the same vacancy; each wins by compare-and-swap on what it saw. */
inline win(who, saw) {
  atomic {
    if
#ifdef NO_WIN_BY_COMPARE_AND_SWAP
    :: true ->
#else
    :: leader == VACANT && term == saw ->
#endif
       PROMISE(two_leaders, leader == VACANT);
       leader = who; reigns++;
#ifndef NO_TERM_RISES
       term++
#endif
    :: else
    fi
  }
}

active proctype Successor() {
  byte saw;
  vacate();
  saw = term;
  win(1, saw);
  if
  :: leader == 1 -> vacate(); saw = term; win(0, saw)
  :: else
  fi
}

active proctype Rival() {
  byte saw;
end:
  atomic { leader == VACANT -> saw = term };
  win(0, saw)
}

active proctype Rest() {
  timeout -> PROMISE(waits_for_ever, !waiting)
}
