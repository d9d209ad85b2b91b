/* The lease: who may believe in himself, who may bury whom, on clocks that nobody compares.

   Time goes by in ticks. A holder renews its lease and acts while it trusts itself; an observer
   renews its own, looks at the holder's counter, and ends the holder when that has stood still for a
   full ttl of the observer's clock. Ages are counted, not moments, up to a little more than the ttl.
   The holder may freeze and may be cut off with the old primary; all commits may stall.
   The holder's clock may lose SLIP ticks in each ttl. */
#include "promise.h"

/* CHECK */
/* RULE NO_DEADLINE_FROM_SENDING: acts past its end */
/* RULE NO_MARGIN: acts past its end */
/* RULE NO_COMPARE_AND_SWAP: acts past its end */
/* RULE NO_FULL_TTL: acts past its end */
/* RULE NO_CLOCK_THROUGH_SLEEP: acts past its end */
/* RULE NO_SYNCHRONOUS_RENEWAL: acts past its end */
/* RULE NO_RENEWAL_OF_THE_LIVE_ONLY: acts past its end */
/* RULE NO_WELL_FOR_A_TTL: buried the healthy */

#define TTL    3
#define SLIP   1
#ifdef NO_MARGIN
#define MARGIN 0
#else
#define MARGIN SLIP
#endif
#define LATE   1                              /* a third of the ttl, rounded */
#define OLD    (TTL + 1)                      /* ages are not counted further */
#define OLDER(age) age = (age < OLD -> age + 1 : OLD)

mtype = { HOME, SENT, COMMITTED };            /* where a renewal is */

/* The holder: ages on its own clock. */
mtype renewal = HOME;
byte sent = OLD, trust = 0;                   /* since the sending of: this renewal, the one we trust */
byte slip = TTL;                              /* ticks since its clock last lost one */
bool frozen, cut_off, ill;                    /* ill: it was frozen or cut off lately */
bool ended;

/* The observer: ages on its clock. `moved...`: the holder's counter is another than the one seen,
   than the one that the ending under way names. */
mtype own = HOME;
byte own_sent, acknowledged = 0, well = 0, seen = 0;
bool moved_since_seen, moved_since_asked, asked;

bool stalled;                                 /* no commit comes through */
bool acts_past_its_end, buried_the_healthy;

#define TRUSTED (trust < TTL - MARGIN)
#define DUE     (renewal == HOME && !frozen && !ended)

/* Clocks go on; but a healthy member renews and hears of it within a tick, if commits come through. */
#define BUSY (!frozen && !cut_off && !ended && (renewal != SENT || !stalled))

active proctype Time() {
end:
  do
  :: atomic { !(BUSY) && !(own == HOME || !stalled && own == SENT) ->
       if
       :: slip >= TTL -> slip = 0             /* the holder's clock loses a tick */
       :: true -> OLDER(slip);
#ifdef NO_CLOCK_THROUGH_SLEEP
          if :: frozen -> skip :: else ->
#endif
          if :: renewal != HOME -> OLDER(sent) :: else -> sent = 0 fi;
          OLDER(trust)
#ifdef NO_CLOCK_THROUGH_SLEEP
          fi
#endif
       fi;
       OLDER(own_sent);                       /* never at home when a tick passes */
       OLDER(acknowledged); OLDER(well); OLDER(seen) }
  od
}

active proctype Holder() {
end:
  do
  :: atomic { DUE -> renewal = SENT; sent = 0 }
  :: atomic { renewal == SENT && !cut_off && !stalled ->
#ifndef NO_RENEWAL_OF_THE_LIVE_ONLY
       if
       :: ended -> renewal = HOME; trust = OLD     /* it is told */
       :: else ->
#endif
       renewal = COMMITTED; ill = ill && frozen; moved_since_seen = true; moved_since_asked = true
#ifndef NO_RENEWAL_OF_THE_LIVE_ONLY
       fi
#endif
     }
#ifdef NO_SYNCHRONOUS_RENEWAL
  :: atomic { renewal == SENT && cut_off -> renewal = COMMITTED }    /* on the old primary alone */
#endif
  :: atomic { renewal == COMMITTED && !frozen ->
       renewal = HOME;
#ifdef NO_DEADLINE_FROM_SENDING
       trust = 0;
#else
       trust = sent;
#endif
       sent = 0;
       PROMISE(acts_past_its_end, !(ended && TRUSTED)) }
  :: atomic { !frozen && !ended -> frozen = true; ill = true }
  :: atomic { frozen -> frozen = false }
  :: atomic { !cut_off && !ended -> cut_off = true; ill = true }     /* with the old primary */
  od
}

#ifdef NO_FULL_TTL
#define STOOD_STILL (seen >= TTL / 2)
#else
#define STOOD_STILL (seen >= TTL)
#endif
#ifdef NO_WELL_FOR_A_TTL
#define WELL true
#else
#define WELL (well >= TTL && acknowledged <= LATE)
#endif

active proctype Observer() {
end:
  do
  :: atomic { own == HOME -> own = SENT; own_sent = 0 }
  :: atomic { own == SENT && !stalled -> own = COMMITTED }
  :: atomic { own == COMMITTED -> own = HOME;
       if
       :: acknowledged > LATE || own_sent > LATE -> well = 0
       :: else
       fi;
       acknowledged = 0; own_sent = 0 }
  :: atomic { moved_since_seen -> moved_since_seen = false; seen = 0 }
  :: atomic { !asked && !ended && STOOD_STILL && WELL -> asked = true; moved_since_asked = moved_since_seen }
  :: atomic { asked && !stalled -> asked = false;
#ifndef NO_COMPARE_AND_SWAP
       if
       :: moved_since_asked -> skip
       :: else ->
#endif
       ended = true;
       PROMISE(acts_past_its_end, !TRUSTED);
       PROMISE(buried_the_healthy, ill)
#ifndef NO_COMPARE_AND_SWAP
       fi
#endif
     }
  od
}

active proctype Stalls() {
end:
  do
  :: atomic { !stalled && own != SENT && !(BUSY && renewal == SENT) -> stalled = true }
  :: stalled -> stalled = false
  od
}
