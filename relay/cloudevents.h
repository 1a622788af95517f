/*
 * cloudevents.h
 *		A message as a CloudEvents 1.0 JSON object.
 */
#ifndef CLOUDEVENTS_H
#define CLOUDEVENTS_H

#include "mem.h"
#include "relay.h"

extern void CloudEventAppend(Buffer *out, const RelayMessage *message);
extern void CloudEventAppendString(Buffer *out, RelayText text);

#endif							/* CLOUDEVENTS_H */
