/*
 * test_subscription.c
 *		What goes to the database in its own words.
 */
#include <stdlib.h>

#include "subscription.h"
#include "tap.h"

static void
cleaned(const char *text, bool utf8, const char *expected, const char *name)
{
	char	   *clean = SubscriptionCleanText(text, utf8);

	tap_is(clean, expected, name);
	free(clean);
}

int
main(void)
{
	cleaned("no: \303\251 \344\270\226 \360\237\230\200", true, "no: \303\251 \344\270\226 \360\237\230\200", "UTF-8 stays");
	cleaned("a\377b\303(c\355\240\200d\344\270", true, "a?b?(c???d??", "what is none does not");
	cleaned("no: \303\251 \344\270\226!", false, "no: ? ?!", "a database in another encoding gets ASCII");
	return tap_done();
}
