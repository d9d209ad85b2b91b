/* Adoption: a command of an ended member is taken over with its grant, and the host is told first.

   Member 0 began a step of a command under an exclusive grant and its token, sent the call to the
   host, and died; the call is still on its way and may arrive at any time. Members 1 and 2 both try to
   adopt; member 3 wants the key for something else. Once the server may crash: the counter of the
   tokens steps back, the epoch goes on. */
#include "promise.h"

/* CHECK */
/* RULE NO_GRANT_WITHOUT_MEMBER_REFUSES: free in between */
/* RULE NO_ADOPTION_KEEPS_GRANTS: free in between */
/* RULE NO_CLAIM_BY_COMPARE_AND_SWAP: two adopters */
/* RULE NO_NEW_TOKEN: done twice */
/* RULE NO_QUESTION_FIRST: done twice */
/* RULE NO_QUESTION_CARRIES_TOKEN: done twice */
/* RULE NO_HOST_REFUSES_LOWER: done twice */
/* RULE NO_EPOCH_IN_TOKEN: tokens fall */

#define NOBODY 9

byte owner = 0;                               /* of the command */
bool over;                                    /* the command */
byte holder = 0;                              /* the member of the grant; NOBODY: awaits adoption */
bool stands = true;                           /* the grant's row */
byte epoch = 0, counter = 1;
byte token = 1;                               /* of the grant; epoch in front of the counter */
byte given = 1;                               /* the highest token that was ever given */
byte adopters;

byte highest;                                 /* the host's gate */
byte done;                                    /* how often the host has done the step */
bool free_in_between, two_adopters, done_twice, tokens_fall;

#ifdef NO_EPOCH_IN_TOKEN
#define NEXT counter
#else
#define NEXT (epoch * 16 + counter)
#endif
#ifdef NO_HOST_REFUSES_LOWER
#define REFUSED(t) false
#else
#define REFUSED(t) (t < highest)
#endif

inline draw() {
  counter++; PROMISE(tokens_fall, NEXT > given); given = NEXT
}

inline call(t) {                              /* arrives at the host */
  atomic {
    if
    :: REFUSED(t)
    :: else -> highest = (t > highest -> t : highest); done++; PROMISE(done_twice, done <= 1)
    fi
  }
}

active proctype LateCall() { call(1) }

active proctype Ending() {
  atomic {
    owner = NOBODY; holder = NOBODY;
#ifdef NO_ADOPTION_KEEPS_GRANTS
    stands = false
#endif
  }
}

active proctype Crash() {
end:
  atomic { owner == NOBODY -> epoch++; counter = 0 }
}

inline adopt(me) {
#ifdef NO_CLAIM_BY_COMPARE_AND_SWAP
  owner == NOBODY;
end_claim:
  atomic { !over ->
#else
  atomic { owner == NOBODY && !over ->
#endif
    PROMISE(two_adopters, owner == NOBODY);
    owner = me; holder = me; stands = true;
#ifndef NO_NEW_TOKEN
    draw(); token = NEXT;
#endif
    mine = token
  };
#ifndef NO_QUESTION_FIRST
  atomic {                                    /* was it done? The question is a call as well */
    known = done > 0;
#ifndef NO_QUESTION_CARRIES_TOKEN
    highest = (mine > highest -> mine : highest)
#endif
  };
#endif
  if :: known :: else -> call(mine) fi;
  atomic { over = true; stands = false }
}

active proctype Adopter1() {
  byte mine; bool known;
end:
  adopt(1)
}

active proctype Adopter2() {
  byte mine; bool known;
end:
  adopt(2)
}

active proctype Other() {
#ifdef NO_GRANT_WITHOUT_MEMBER_REFUSES
#define IN_THE_WAY (stands && holder != NOBODY)
#else
#define IN_THE_WAY stands
#endif
end:
  atomic { !(IN_THE_WAY) -> draw(); PROMISE(free_in_between, over) }
}
