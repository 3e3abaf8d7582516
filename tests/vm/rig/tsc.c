/* Prints the rate of this host's time-stamp counter in kHz, which is that of every guest: the
 * emulator passes it through. A guest that measures it while the host is busy can be wrong by far,
 * and its clocks with it. */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

static unsigned long long now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC_RAW, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

/* Both clocks at one moment: of some tries the one in which reading them took least. */
static void read_both(unsigned long long *ns, unsigned long long *ticks)
{
	unsigned long long least = ~0ull;
	for (int i = 0; i < 1000; i++) {
		unsigned long long before = __rdtsc(), at = now(), after = __rdtsc();
		if (after - before < least) {
			least = after - before;
			*ns = at;
			*ticks = before + least / 2;
		}
	}
}

int main(void)
{
	unsigned long long ns[2], ticks[2];
	struct timespec apart = { 0, 200000000 };
	read_both(&ns[0], &ticks[0]);
	nanosleep(&apart, NULL);
	read_both(&ns[1], &ticks[1]);
	printf("%.0f\n", (ticks[1] - ticks[0]) * 1e6 / (ns[1] - ns[0]));
	return 0;
}
