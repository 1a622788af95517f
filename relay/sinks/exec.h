/*
 * sinks/exec.h
 *		The settings of the exec sink, and a child process with pipes.
 */
#ifndef SINKS_EXEC_H
#define SINKS_EXEC_H

#include <stdbool.h>
#include <sys/types.h>

#include "../log.h"

typedef struct ExecSettings
{
	char	   *command;
	bool		shell;
	int			answer_timeout_s;
	int			in_flight;
	int			grace_s;
} ExecSettings;

typedef struct Child
{
	pid_t		pid;			/* 0: there is none; also its process group */
	int			pidfd;			/* readable when it has ended; -1 if the system has none */
	int			in;				/* the writing end of its standard input; not blocking */
	int			out;			/* the reading ends of the others; likewise */
	int			err;
} Child;

/*
 * The words of a command line; NULL with the reason.  Words are separated by
 * blanks; '...' and "..." hold blanks together, and in "..." as outside of
 * quotes a backslash takes the next character as it is.  Nothing else is
 * special: no variables, no wildcards, no redirections.
 */
extern char **ChildArguments(const char *command, LogError *error);
extern void ChildArgumentsFree(char **arguments);

/* Whether there is a program of that name, as execvp(3) would look for it. */
extern bool ChildProgramExists(const char *name);

/* Starts it in a process group of its own, with no other descriptor of ours. */
extern bool ChildStart(Child *child, char *const *arguments, LogError *error);

extern void ChildKill(const Child *child, int signal_number);

extern bool ChildHasEnded(const Child *child);

/* Of one that has ended: says how, closes the pipes and forgets it. */
extern void ChildReap(Child *child, LogError *how);

/* End of input; SIGTERM; SIGKILL: with so many seconds in all for the first two. */
extern void ChildStop(Child *child, int grace_s);

#endif							/* SINKS_EXEC_H */
