/* The rig's hand in a guest: runs commands that arrive on a virtio-serial port.
 *
 * Text lines both ways, so that a reset in the middle of one costs that line only. Bytes as hex.
 *
 *   host to guest   R ID HEX     run this with sh -c, standard input empty
 *   guest to host   H BOOT-ID    the agent is there: a new boot, if the id is new
 *                   O ID HEX     output, both streams
 *                   X ID STATUS  it ended: exit code, or 128 + signal
 *
 * Real-time and locked in memory, so that it answers on a busy guest; its children are not. They
 * inherit file 3, a second port whose text the host keeps: logs that survive a power cut.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMANDS 32
#define LINE (1 << 20)
#define PIECE 4096

struct command {
	long id;
	pid_t pid;
	int out;
};

static struct command commands[COMMANDS];
static char line[LINE];
static size_t have;
static int port;

static void say(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t wrote = write(port, text, length);
		if (wrote < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (wrote < 0)
			continue;
		text += wrote;
		length -= wrote;
	}
}

static void hello(void)
{
	char id[64] = "", text[80];
	int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (read(file, id, sizeof id - 1) < 0)
		id[0] = 0;
	close(file);
	id[strcspn(id, "\n")] = 0;
	say(text, snprintf(text, sizeof text, "\nH %s\n", id));
}

static void pass_output(struct command *command)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char piece[PIECE];
	char text[PIECE * 2 + 40];
	ssize_t length;
	while ((length = read(command->out, piece, sizeof piece)) > 0) {
		int at = snprintf(text, 30, "O %ld ", command->id);
		for (ssize_t i = 0; i < length; i++) {
			text[at++] = digits[piece[i] >> 4];
			text[at++] = digits[piece[i] & 15];
		}
		text[at++] = '\n';
		say(text, at);
	}
	if (length == 0) {
		close(command->out);
		command->out = -1;
	}
}

static void run(long id, char *text)
{
	struct command *command = NULL;
	int ends[2];
	for (int i = 0; i < COMMANDS && !command; i++)
		if (commands[i].pid == 0)
			command = &commands[i];
	if (!command || pipe2(ends, O_CLOEXEC) < 0) {
		char no[40];
		say(no, snprintf(no, sizeof no, "X %ld 255\n", id));
		return;
	}
	pid_t pid = fork();
	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		execl("/bin/sh", "sh", "-c", text, NULL);
		_exit(127);
	}
	close(ends[1]);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	*command = (struct command){ id, pid, ends[0] };
}

static int digit(char letter)
{
	return letter <= '9' ? letter - '0' : (letter | 32) - 'a' + 10;
}

static void obey(char *text)
{
	char *end;
	if (text[0] != 'R' || text[1] != ' ')
		return;
	long id = strtol(text + 2, &end, 10);
	if (*end != ' ')
		return;
	char *from = end + 1, *to = text;
	while (from[0] && from[1]) {
		*to++ = digit(from[0]) << 4 | digit(from[1]);
		from += 2;
	}
	*to = 0;
	run(id, text);
}

static void listen_to_host(void)
{
	ssize_t length = read(port, line + have, sizeof line - 1 - have);
	if (length <= 0) {
		/* Nobody is connected: the port reports a hang-up for as long as that is so. */
		usleep(10000);
		return;
	}
	have += length;
	line[have] = 0;
	char *start = line, *end;
	while ((end = memchr(start, '\n', line + have - start))) {
		*end = 0;
		obey(start);
		start = end + 1;
	}
	have -= start - line;
	memmove(line, start, have);
	if (have == sizeof line - 1)
		have = 0;
}

static void collect(void)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < COMMANDS; i++) {
			struct command *command = &commands[i];
			char text[60];
			if (command->pid != pid)
				continue;
			if (command->out >= 0)
				pass_output(command);
			if (command->out >= 0)
				close(command->out);
			int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			say(text, snprintf(text, sizeof text, "X %ld %d\n", command->id, code));
			command->pid = 0;
		}
	}
}

/* Standard output is the command port, file 3 the log. */
int main(void)
{
	struct sched_param priority = { .sched_priority = 99 };
	struct signalfd_siginfo news;
	sigset_t children;
	port = fcntl(1, F_DUPFD_CLOEXEC, 10);
	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	int signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	hello();
	for (;;) {
		struct pollfd files[COMMANDS + 2] = { { port, POLLIN, 0 }, { signals, POLLIN, 0 } };
		for (int i = 0; i < COMMANDS; i++) {
			int open = commands[i].pid && commands[i].out >= 0;
			files[i + 2] = (struct pollfd){ open ? commands[i].out : -1, POLLIN, 0 };
		}
		if (poll(files, COMMANDS + 2, -1) < 0 && errno != EINTR)
			return 1;
		for (int i = 0; i < COMMANDS; i++)
			if (files[i + 2].revents)
				pass_output(&commands[i]);
		while (read(signals, &news, sizeof news) > 0)
			;
		collect();
		if (files[0].revents)
			listen_to_host();
	}
}
