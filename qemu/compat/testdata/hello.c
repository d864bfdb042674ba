#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

// What a C library's start-up and its simplest services do.
int main(int argc, char **argv)
{
	static char zeros[1 << 16];
	printf("hello, world: %d arguments\n", argc - 1);
	for (int i = 1; i < argc; i++)
		printf("%d: %s\n", i, argv[i]);
	printf("HOME=%s\n", getenv("HOME"));
	for (size_t i = 0; i < sizeof zeros; i++)
		if (zeros[i])
			return 1;
	char *p = malloc(10 << 20);
	memset(p, 1, 10 << 20);
	free(p);
	struct timespec a, b;
	if (clock_gettime(CLOCK_MONOTONIC, &a) || clock_gettime(CLOCK_MONOTONIC, &b))
		return 2;
	if (b.tv_sec < a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec < a.tv_nsec))
		return 3;
	if (time(NULL) < 1600000000)
		return 4;
	printf("page %ld, platform %s, random %s, secure %lu, vdso %s\n", sysconf(_SC_PAGESIZE), (char *)getauxval(AT_PLATFORM),
		getauxval(AT_RANDOM) ? "there" : "missing", getauxval(AT_SECURE), getauxval(AT_SYSINFO_EHDR) ? "there" : "missing");
	errno = 0;
	if (read(-1, p, 1) != -1)
		return 5;
	printf("%s\n", strerror(errno));
	fprintf(stderr, "to stderr\n");
	char line[100];
	while (fgets(line, sizeof line, stdin))
		printf("read %s", line);
	return argc > 1 ? atoi(argv[1]) : 0;
}
