/*
 * sinks/exec_child.c
 *		A child process with pipes to its standard input, output and error.
 *
 * Between fork and exec the child calls only what is async-signal-safe: other
 * sinks have threads, and a lock that one of them held stays locked for ever in
 * the child.
 *
 * The child leads a process group, so that what it has started ends with it.
 * When the relay dies it gets SIGTERM, and the end of its input.
 */
#define _GNU_SOURCE				/* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../mem.h"
#include "../waitset.h"
#include "exec.h"

#define EXIT_NO_EXEC	127		/* as a shell has it */
#define REAP_PAUSE_MS	10		/* where there is no pidfd */

/* ---------------------------------------------------------------- arguments */

typedef struct Words
{
	char	  **words;			/* NULL at the end */
	int			nwords;
} Words;

static void
add_word(Words *words, Buffer *word)
{
	words->words = MemRealloc(words->words, (words->nwords + 2) * sizeof(char *));
	words->words[words->nwords++] = MemStrdup(BufferToText(word));
	words->words[words->nwords] = NULL;
	word->len = 0;
}

char **
ChildArguments(const char *command, LogError *error)
{
	Words		words = {0};
	Buffer		word = {0};
	bool		in_word = false;
	char		quote = '\0';

	for (const char *c = command; *c != '\0'; c++)
	{
		if (*c == '\\' && quote != '\'' && c[1] != '\0')
			BufferAppend(&word, ++c, 1);
		else if (quote == '\0' && (*c == ' ' || *c == '\t'))
		{
			if (in_word)
				add_word(&words, &word);
			in_word = false;
			continue;
		}
		else if (*c == quote)
			quote = '\0';
		else if (quote == '\0' && (*c == '\'' || *c == '"'))
			quote = *c;
		else
			BufferAppend(&word, c, 1);
		in_word = true;
	}
	if (in_word)
		add_word(&words, &word);
	BufferFree(&word);

	if (quote == '\0' && words.nwords > 0)
		return words.words;
	LogErrorSet(error, quote != '\0' ? "the command has a quote without its partner" : "the command is empty");
	ChildArgumentsFree(words.words);
	return NULL;
}

void
ChildArgumentsFree(char **arguments)
{
	for (char **word = arguments; word != NULL && *word != NULL; word++)
		free(*word);
	free(arguments);
}

bool
ChildProgramExists(const char *name)
{
	const char *path = getenv("PATH");
	Buffer		file = {0};
	bool		found = false;

	if (strchr(name, '/') != NULL)
		return access(name, X_OK) == 0;
	if (path == NULL)
		path = "/bin:/usr/bin";
	while (!found)
	{
		size_t		len = strcspn(path, ":");

		file.len = 0;
		BufferAppendf(&file, "%.*s/%s", len > 0 ? (int) len : 1, len > 0 ? path : ".", name);
		found = access(BufferToText(&file), X_OK) == 0;
		if (path[len] == '\0')
			break;
		path += len + 1;
	}
	BufferFree(&file);
	return found;
}

/* ---------------------------------------------------------------- starting */

/* The child's side of fork. */
static void __attribute__((noreturn))
become(char *const *arguments, const int files[3], pid_t parent)
{
	static const char failed[] = "could not execute the command\n";
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigset_t	none;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_NO_EXEC);

	for (int i = 0; i < 3; i++)
	{
		if (dup2(files[i], i) < 0)
			_exit(EXIT_NO_EXEC);
	}
	syscall(SYS_close_range, 3, ~0U, 0);

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	execvp(arguments[0], arguments);
	if (write(STDERR_FILENO, failed, sizeof(failed) - 1) < 0)
		_exit(EXIT_NO_EXEC);
	_exit(EXIT_NO_EXEC);
}

static void
close_all(int *fds, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

bool
ChildStart(Child *child, char *const *arguments, LogError *error)
{
	int			pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};	/* of its 0, 1 and 2 */
	pid_t		parent = getpid();

	*child = (Child) {.pidfd = -1,.in = -1,.out = -1,.err = -1};
	for (int i = 0; i < 3; i++)
	{
		if (pipe2(pipes[i], O_CLOEXEC) == 0)
			continue;
		LogErrorSet(error, "could not create a pipe: %s", strerror(errno));
		close_all(&pipes[0][0], 6);
		return false;
	}
	child->pid = fork();
	if (child->pid == 0)
		become(arguments, (int[]) {pipes[0][0], pipes[1][1], pipes[2][1]}, parent);
	if (child->pid < 0)
	{
		LogErrorSet(error, "could not start \"%s\": %s", arguments[0], strerror(errno));
		child->pid = 0;
		close_all(&pipes[0][0], 6);
		return false;
	}

	/* Both sides do it, so that it is done whoever comes first. */
	setpgid(child->pid, child->pid);
	child->pidfd = syscall(SYS_pidfd_open, child->pid, 0);
	child->in = pipes[0][1];
	child->out = pipes[1][0];
	child->err = pipes[2][0];
	close_all((int[]) {pipes[0][0], pipes[1][1], pipes[2][1]}, 3);
	fcntl(child->in, F_SETFL, O_NONBLOCK);
	fcntl(child->out, F_SETFL, O_NONBLOCK);
	fcntl(child->err, F_SETFL, O_NONBLOCK);
	return true;
}

/* ---------------------------------------------------------------- ending */

void
ChildKill(const Child *child, int signal_number)
{
	kill(-child->pid, signal_number);
}

bool
ChildHasEnded(const Child *child)
{
	siginfo_t	ended = {0};

	return waitid(P_PID, child->pid, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 || ended.si_pid != 0;
}

void
ChildReap(Child *child, LogError *how)
{
	int			status;

	/* What it left behind, while its number is still taken. */
	ChildKill(child, SIGKILL);
	if (waitpid(child->pid, &status, 0) < 0)
		LogErrorSet(how, "the child is gone");
	else if (WIFEXITED(status))
		LogErrorSet(how, "the child ended with exit code %d", WEXITSTATUS(status));
	else
		LogErrorSet(how, "the child was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));

	close_all((int[]) {child->in, child->out, child->err, child->pidfd}, 4);
	*child = (Child) {.pidfd = -1,.in = -1,.out = -1,.err = -1};
}

/* Waits for its end; false if the time is over. */
static bool
await_end(Child *child, int64_t until)
{
	LogError	how;

	while (!ChildHasEnded(child))
	{
		struct pollfd fd = {.fd = child->pidfd,.events = POLLIN};
		int64_t		left = (until - WaitNow()) / WAIT_MS(1);

		if (left <= 0)
			return false;
		poll(&fd, 1, child->pidfd >= 0 || left < REAP_PAUSE_MS ? (int) left : REAP_PAUSE_MS);
	}
	ChildReap(child, &how);
	return true;
}

void
ChildStop(Child *child, int grace_s)
{
	int64_t		begin = WaitNow();

	if (child->pid == 0)
		return;
	close_all(&child->in, 1);
	if (await_end(child, begin + WAIT_S(grace_s) / 2))
		return;
	ChildKill(child, SIGTERM);
	if (await_end(child, begin + WAIT_S(grace_s)))
		return;
	ChildKill(child, SIGKILL);
	await_end(child, WAIT_FOREVER / 2);
}
