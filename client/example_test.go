package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/client"
	"github.com/sallyport/sallyport/server"
)

// A web client that goes through a proxy. The proxy looks up the names.
func Example_http() {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "this is %s", r.Host)
	}))
	defer web.Close()
	proxy := startProxy(map[string]string{"www.example.com:80": web.Listener.Addr().String()})
	defer proxy.Close()

	d, err := client.New("socks4a://" + proxy.Addr())
	if err != nil {
		log.Panic(err)
	}
	transport := &http.Transport{DialContext: d.DialContext}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Transport: transport}

	response, err := browser.Get("http://www.example.com/")
	if err != nil {
		log.Panic(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		log.Panic(err)
	}
	fmt.Printf("%s: %s\n", response.Status, page)
	// Output: 200 OK: this is www.example.com
}

// A connection to a target, within ten seconds or not at all.
func ExampleDialer_DialContext() {
	greeter := startServer(func(c net.Conn) { io.WriteString(c, "220 ready\r\n") })
	defer greeter.Close()
	proxy := startProxy(map[string]string{"mail.example.com:25": greeter.Addr()})
	defer proxy.Close()

	d, err := client.New("socks4a://alice@" + proxy.Addr())
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", "mail.example.com:25")
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()

	greeting, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		log.Panic(err)
	}
	fmt.Printf("%v says %q\n", conn.RemoteAddr(), greeting)
	// Output: mail.example.com:25 says "220 ready\r\n"
}

// Active FTP in short: the server is told over the control connection where to
// send the file, and connects to the proxy, which waits there for us.
func ExampleDialer_Listen() {
	ftp := startServer(sendFileActively)
	defer ftp.Close()
	proxy := startProxy(map[string]string{"ftp.example.com:21": ftp.Addr()})
	defer proxy.Close()

	d, err := client.New("socks4a://alice@" + proxy.Addr())
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// The primary connection. It stays open: the proxy grants a BIND only beside it.
	control, err := d.DialContext(ctx, "tcp", "ftp.example.com:21")
	if err != nil {
		log.Panic(err)
	}
	defer control.Close()

	ln, err := d.Listen(ctx, "tcp", control.RemoteAddr().String())
	if err != nil {
		log.Panic(err)
	}
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })() // ctx is to bound Accept as well

	// Addr is where the proxy waits: PORT h1,h2,h3,h4,p1,p2.
	a := ln.Addr().(*net.TCPAddr)
	ip := a.IP.To4()
	_, err = fmt.Fprintf(control, "PORT %d,%d,%d,%d,%d,%d\r\n", ip[0], ip[1], ip[2], ip[3], a.Port>>8, a.Port&0xff)
	if err != nil {
		log.Panic(err)
	}

	data, err := ln.Accept()
	if err != nil {
		log.Panic(err)
	}
	defer data.Close()
	if _, err := io.Copy(os.Stdout, data); err != nil {
		log.Panic(err)
	}
	// Output: the file
}

// What a refusal says. Codes 92 and 93 are about IDENT on this machine, and no
// other target would be granted; 91 is all the rest.
func ExampleReplyError() {
	proxy := startProxy(nil)
	defer proxy.Close()

	for _, userID := range []string{"alice", "ghost", "mallory"} {
		d, err := client.New("socks4a://" + userID + "@" + proxy.Addr())
		if err != nil {
			log.Panic(err)
		}
		_, err = d.Dial("tcp", "www.example.com:80")
		switch {
		case errors.Is(err, client.ErrNoIdentd):
			fmt.Println(userID, "needs an IDENT server that the proxy can reach")
		case errors.Is(err, client.ErrOtherUser):
			fmt.Println(userID, "is not the name that IDENT gives")
		case errors.Is(err, client.ErrRejected):
			refusal, _ := errors.AsType[*client.ReplyError](err)
			fmt.Printf("%s may not, or it failed: %s %s got %d\n", userID, refusal.Op, refusal.Target, refusal.Code)
		}
	}
	// Output:
	// alice may not, or it failed: connect www.example.com:80 got 91
	// ghost needs an IDENT server that the proxy can reach
	// mallory is not the name that IDENT gives
}

// Two proxies in a row: the second is reached through the first.
func ExampleWithForward() {
	greeter := startServer(func(c net.Conn) { io.WriteString(c, "220 ready") })
	defer greeter.Close()
	inner := startProxy(map[string]string{"mail.example.com:25": greeter.Addr()})
	defer inner.Close()
	outer := startProxy(map[string]string{"inner.example.com:1080": inner.Addr()})
	defer outer.Close()

	first, err := client.New("socks4a://" + outer.Addr())
	if err != nil {
		log.Panic(err)
	}
	both, err := client.New("socks4a://inner.example.com", client.WithForward(first))
	if err != nil {
		log.Panic(err)
	}
	conn, err := both.Dial("tcp", "mail.example.com:25")
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		log.Panic(err)
	}
	// Output: 220 ready
}

// Several proxies in a row, each of its own kind: one string for all of them.
func ExampleNew_chain() {
	greeter := startServer(func(c net.Conn) { io.WriteString(c, "220 ready") })
	defer greeter.Close()
	outer := startProxy(nil)
	defer outer.Close()
	inner, stop := serveSallyport(new(server.Server))
	defer stop()

	d, err := client.New("socks4a://" + outer.Addr() + ",http://" + inner)
	if err != nil {
		log.Panic(err)
	}
	conn, err := d.Dial("tcp", greeter.Addr())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		log.Panic(err)
	}
	// Output: 220 ready
}

// A question in one datagram, and the answer to it.
func ExampleDialer_ListenPacket() {
	oracle, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	defer oracle.Close()
	go func() {
		_, from, err := oracle.ReadFrom(make([]byte, 100))
		if err == nil {
			oracle.WriteTo([]byte("42"), from)
		}
	}()
	proxy, stop := serveSallyport(new(server.Server))
	defer stop()

	d, err := client.New("socks5://" + proxy)
	if err != nil {
		log.Panic(err)
	}
	pc, err := d.ListenPacket(context.Background(), "udp", "")
	if err != nil {
		log.Panic(err)
	}
	defer pc.Close()
	if err := pc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Panic(err)
	}
	if _, err := pc.WriteTo([]byte("the question"), oracle.LocalAddr()); err != nil {
		log.Panic(err)
	}
	answer := make([]byte, 100)
	n, from, err := pc.ReadFrom(answer)
	if err != nil {
		log.Panic(err)
	}
	fmt.Printf("%s, from the one who was asked: %v\n", answer[:n], from.String() == oracle.LocalAddr().String())
	// Output: 42, from the one who was asked: true
}

// What a person has set for curl holds here as well.
func ExampleFromEnvironment() {
	greeter := startServer(func(c net.Conn) { io.WriteString(c, "220 ready") })
	defer greeter.Close()
	proxy := startProxy(map[string]string{"mail.example.com:25": greeter.Addr()})
	defer proxy.Close()
	os.Setenv("all_proxy", "socks4a://"+proxy.Addr())
	os.Setenv("no_proxy", "intranet.example, 192.168.0.0/16")
	defer os.Unsetenv("all_proxy")
	defer os.Unsetenv("no_proxy")

	e, err := client.FromEnvironment()
	if err != nil {
		log.Panic(err)
	}
	conn, err := e.Dial("tcp", "mail.example.com:25")
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		log.Panic(err)
	}
	// Output: 220 ready
}

// localServer is an application server on loopback.
type localServer struct {
	ln net.Listener
	wg sync.WaitGroup
}

// startServer serves one connection after the other and closes each at the end.
func startServer(serve func(net.Conn)) *localServer {
	s := &localServer{ln: listenLocal()}
	s.wg.Go(func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	})
	return s
}

func (s *localServer) Addr() string { return s.ln.Addr().String() }

func (s *localServer) Close() {
	s.ln.Close()
	s.wg.Wait()
}

// sendFileActively reads a PORT line and sends a file to the address in it.
func sendFileActively(control net.Conn) {
	var ip [4]byte
	var high, low int
	if _, err := fmt.Fscanf(control, "PORT %d,%d,%d,%d,%d,%d\r\n", &ip[0], &ip[1], &ip[2], &ip[3], &high, &low); err != nil {
		log.Panic(err)
	}
	data, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: ip[:], Port: high<<8 | low})
	if err != nil {
		log.Panic(err)
	}
	defer data.Close()
	io.WriteString(data, "the file\n")
}
