/*
 * run.h
 *		The running relay: its pipelines, in one thread with one event loop.
 */
#ifndef RUN_H
#define RUN_H

#include "relay.h"

/* Until all is done or something fails; the exit code.  path is what SIGHUP loads again. */
extern int	Run(RelayConfig *config, const char *path);

#endif							/* RUN_H */
