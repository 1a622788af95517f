/*
 * log.h
 *		Messages to the operator, and the text of a failure on its way up.
 */
#ifndef LOG_H
#define LOG_H

typedef enum LogLevel
{
	LOG_ERROR,					/* the relay is about to leave */
	LOG_WARNING,				/* something failed and is dealt with */
	LOG_INFO,					/* what an operator wants to see of a healthy relay */
	LOG_DEBUG
} LogLevel;

/*
 * Why something failed.  Whoever fails fills it, whoever gives up logs it, so
 * each failure is logged once.
 */
typedef struct LogError
{
	char		text[1024];
} LogError;

extern void LogSetLevel(LogLevel level);
extern void Log(LogLevel level, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern void LogErrorSet(LogError *error, const char *fmt,...) __attribute__((format(printf, 2, 3)));

#endif							/* LOG_H */
