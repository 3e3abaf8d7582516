/* The service that the client asks: answers each datagram with its bytes and this node's name.
 *
 *   echo PORT
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct sockaddr_in own = { .sin_family = AF_INET }, asker;
	char question[128], name[32] = "";
	int file = socket(AF_INET, SOCK_DGRAM, 0);
	if (count != 2)
		return 2;
	own.sin_port = htons(atoi(words[1]));
	gethostname(name, sizeof name - 1);
	if (bind(file, (struct sockaddr *)&own, sizeof own) < 0)
		return 1;
	for (;;) {
		socklen_t size = sizeof asker;
		ssize_t length = recvfrom(file, question, 64, 0, (struct sockaddr *)&asker, &size);
		if (length < 0)
			continue;
		memcpy(question + length, name, strlen(name));
		sendto(file, question, length + strlen(name), 0, (struct sockaddr *)&asker, size);
	}
}
